"""Can what a config wants signed be signed, and checked? Over the whole fleet, whatever nodes run here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from appliance.config.compiler.cross_checks import SubscriptionIndex
from appliance.config.compiler.expand import Publication, Subscription, accepted_senders
from appliance.config.compiler.findings import Findings, KeyPath
from appliance.config.compiler.layers import Layer, Tree, as_map, find_origin, find_value
from appliance.config.compiler.local_checks import resolve_own
from appliance.core.names import NodeName
from appliance.core.public_keys import PUBLIC_KEYS
from appliance.core.specs import ANY_SENDER, SignaturePolicy
from appliance.core.suggest import shorten

SHOWN_NODES = 5
_KEYS_TO_SIGN_WITH = (
    ("signing", "key"),
    ("broker", "auth", "nkey_seed"),
    ("broker", "auth", "credentials"),
)
_SIGNATURES = ("signatures",)


def check_signatures(
    findings: Findings,
    tree: Tree,
    subscriptions: Iterable[Subscription],
    publications: Iterable[Publication],
    index: SubscriptionIndex,
    layers_below: Callable[[str], tuple[Layer, ...]],
) -> None:
    """A key to sign with, keys to check with where nothing else counts, and ids that tell what came before."""
    nodes = as_map(tree.get("nodes"))
    keyed = {NodeName(name) for name, node in nodes.items() if as_map(node).get(PUBLIC_KEYS)}
    declared = frozenset(map(NodeName, nodes))
    without: dict[KeyPath, set[NodeName]] = {}
    first: KeyPath | None = None
    for item in subscriptions:
        policy = item.resolved.settings.get("signatures", SignaturePolicy.OFF)
        if policy is SignaturePolicy.OFF:
            continue
        layers = (*layers_below(item.node), *item.layers)
        origin = find_origin(layers, _SIGNATURES) or item.path
        first = first or origin
        if item.resolved.settings.get("dedupe") is False:
            findings.add(
                "E248",
                find_origin(layers, ("dedupe",)) or item.path,
                f"messages of {item.method} are signed, and `dedupe: false` forgets which have come: whoever has a "
                "copy of one could have it done again",
                hint="drop `dedupe`, or write `signatures: off`",
            )
        if policy is SignaturePolicy.REQUIRE:
            missing = (_peers(item) & declared) - keyed
            if missing:
                without.setdefault(origin, set()).update(missing)
    for entry in publications:
        if entry.node in keyed:
            continue
        for to in entry.resolved.to:
            end = index.get((resolve_own(to, entry.node), entry.resolved.info.name))
            if end is not None and end.way.signatures is SignaturePolicy.REQUIRE:
                layers = (*layers_below(end.first.node), *end.first.layers)
                origin = find_origin(layers, _SIGNATURES) or end.first.path
                without.setdefault(origin, set()).add(entry.node)
    for origin, names in without.items():
        _tell_without(findings, origin, names)
    if first is not None and not any(find_value(tree, keys) for keys in _KEYS_TO_SIGN_WITH):
        findings.add(
            "E250",
            first,
            "messages are to be signed, and the config names no key to sign with",
            hint="log in by one (`broker: {auth: {nkey_seed: …}}`), or write `signing: {key: {file: …}}`",
        )


def _peers(item: Subscription) -> Set[NodeName]:
    """Whose signatures are needed for a subscription as far as it names them: its own node's, and those of senders."""
    accepted = accepted_senders(item.resolved, item.node)
    if accepted is None or accepted == ANY_SENDER:
        return {item.node}
    return accepted | {item.node}


def _tell_without(findings: Findings, origin: KeyPath, names: Set[NodeName]) -> None:
    shown = ", ".join(map(shorten, sorted(names)[:SHOWN_NODES]))
    more = f" and {len(names) - SHOWN_NODES} more" if len(names) > SHOWN_NODES else ""
    have = "has" if len(names) == 1 else "have"
    findings.add(
        "E249",
        origin,
        f"`signatures: require`, and {shown}{more} {have} no `public_keys`: nothing that they say would count",
        hint="`appliance keys new NODE`, and its public key into the config; a Go node cannot sign: `prefer` lets it "
        "in unsigned",
    )
