"""From nodes, roles and layers to resolved entries: what each node subscribes to and publishes, all
settings in place.

A fleet repeats itself, so work is done once per distinct piece: settings of the same roles, and
entries of the same content above the same settings, share one frozen result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from appliance.config.compiler.findings import Findings, KeyPath
from appliance.config.compiler.layers import (
    Layer,
    Tree,
    as_map,
    find_origin,
    find_value,
    merge_layers,
    read_section,
    read_values,
)
from appliance.config.compiler.local_checks import (
    CRON_ONLY,
    OWN_NODE,
    Known,
    idle_schedule_fields,
    names_unknown_role,
)
from appliance.core.method import MethodInfo
from appliance.core.names import MethodName, NodeName
from appliance.core.public_keys import PUBLIC_KEYS
from appliance.core.specs import (
    ACK_MODE,
    ANY_SENDER,
    AckOn,
    Delivery,
    NodeTraits,
    PublisherDefaults,
    PublisherSettings,
    Schedule,
    SubscriberDefaults,
    SubscriberSpec,
)
from appliance.core.targets import choose, is_selector, read_targets
from appliance.core.user_method import UserMethod
from appliance.errors import TargetsUnclear

NOT_SETTINGS = frozenset({"roles", "labels", PUBLIC_KEYS, "subscribe", "publish"})
"""Keys of a role or node that are no worker settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Settings below the entries of a node:

    `defaults`, its roles, the node itself. Shared by equal nodes.
    """

    layers: tuple[Layer, ...]
    merged: Tree
    defaults: PublisherDefaults
    subscriber: SubscriberDefaults
    key: int
    """Tells bases apart in memo keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSubscription:
    """A subscription with every setting decided, still without its node."""

    info: MethodInfo
    wants_ack: bool
    senders: frozenset[NodeName] | None
    """Node names, ``local`` among them; None for any declared node."""
    settings: dict[str, Any]
    compression: str | None
    serialization: str | None
    """What the entry itself says about encodings, although it decides nothing."""
    enabled: bool = True
    relay_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPublication:
    """A publish entry with every setting decided, still without its node."""

    info: MethodInfo
    to: tuple[str, ...]
    wants_ack: bool
    settings: PublisherSettings
    schedule: Schedule | None
    reply_method: str


class Subscription(NamedTuple):
    """One subscription of one node. `path` is the entry's place that names it last, `token` the node token of its
    subject.
    """

    node: NodeName
    method: MethodName
    path: KeyPath
    layers: tuple[Layer, ...]
    resolved: ResolvedSubscription
    token: NodeName


class Publication(NamedTuple):
    """One publish entry of one node."""

    node: NodeName
    name: str
    path: KeyPath
    layers: tuple[Layer, ...]
    resolved: ResolvedPublication


class Expander:
    """Walks a config's nodes. One per compilation."""

    def __init__(self, tree: Tree, known: Known, findings: Findings) -> None:
        self._defaults = as_map(tree.get("defaults"))
        self._known = known
        self._findings = findings
        self._senders = SenderNames(known, findings)
        self._bases: dict[tuple[tuple[str, ...], str], Base] = {}
        self._from_roles: dict[tuple[tuple[str, ...], str], dict[str, tuple[Layer, ...]]] = {}
        self._subscriptions: dict[tuple[int, str, str], ResolvedSubscription] = {}
        self._publications: dict[tuple[int, str, str], ResolvedPublication | None] = {}

    def base(self, node: str) -> Base:
        """The settings below the entries of `node`."""
        own = as_map(self._known.nodes[node])
        settings = {name: value for name, value in own.items() if name not in NOT_SETTINGS}
        roles = self._roles(node)
        # as text, since maps have no hash: nodes that say the same share one base
        memo = (roles, repr(settings) if settings else "")
        found = self._bases.get(memo)
        if found is None:
            layers: list[Layer] = [(("defaults",), self._defaults)]
            layers.extend(
                (("roles", role), _only_settings(as_map(self._known.roles[role]))) for role in roles
            )
            # last, as the nearest layer wins
            layers.append((("nodes", node), settings))
            merged = merge_layers(tree for _, tree in layers)
            found = self._bases[memo] = Base(
                layers=tuple(layers),
                merged=merged,
                defaults=PublisherDefaults(
                    ack_mode=find_value(merged, ACK_MODE.keys),
                    **read_values(PublisherSettings, merged),
                ),
                subscriber=read_section(SubscriberDefaults, merged),
                key=len(self._bases),
            )
        return found

    def bases(self) -> Iterator[Base]:
        """Every distinct base of the nodes declared."""
        for node in self._known.nodes:
            self.base(node)
        yield from self._bases.values()

    def subscriptions(self, node: str) -> Iterator[Subscription]:
        """Every subscription of `node` that is switched on."""
        return (item for item in self._all_subscriptions(node) if item.resolved.enabled)

    def switched_off(self, node: str) -> Iterator[Subscription]:
        """Every subscription of `node` whose entry says `enabled: false`."""
        return (item for item in self._all_subscriptions(node) if not item.resolved.enabled)

    def _all_subscriptions(self, node: str) -> Iterator[Subscription]:
        base = self.base(node)
        for method, layers, own in self._entries(node, "subscribe"):
            info = self._known.methods.get(MethodName(method))
            if info is None:
                continue
            memo = (base.key, method, own)
            if memo not in self._subscriptions:
                self._subscriptions[memo] = self._resolve_subscription(base, info, layers)
            resolved = self._subscriptions[memo]
            tokens = (
                [NodeName(f"{final}.{node}") for final in resolved.relay_to]
                if info.relays
                else [info.subject_node or NodeName(node)]
            )
            for token in tokens:
                yield Subscription(
                    NodeName(node), MethodName(method), layers[-1][0], layers, resolved, token
                )
                yield from self._companions(NodeName(node), layers, resolved, token)

    def _companions(
        self,
        node: NodeName,
        layers: tuple[Layer, ...],
        resolved: ResolvedSubscription,
        token: NodeName,
    ) -> Iterator[Subscription]:
        for name in resolved.info.companions:
            info = self._known.methods.get(name)
            if info is not None:
                own = replace(resolved, info=info)
                yield Subscription(node, name, layers[-1][0], layers, own, token)

    def publications(self, node: str) -> Iterator[Publication]:
        """Every publish entry of `node` that is switched on and complete."""
        base = self.base(node)
        for name, layers, own in self._entries(node, "publish"):
            memo = (base.key, name, own)
            if memo not in self._publications:
                self._publications[memo] = self._resolve_publication(base, layers)
            resolved = self._publications[memo]
            if resolved is not None:
                yield Publication(NodeName(node), name, layers[-1][0], layers, resolved)

    def _roles(self, node: str) -> tuple[str, ...]:
        own = as_map(self._known.nodes[node])
        return tuple(role for role in own.get("roles") or () if role in self._known.roles)

    def _entries(self, node: str, section: str) -> Iterator[tuple[str, tuple[Layer, ...], str]]:
        """Entries by name: the layers that make it, lowest first, and the node's own content as a
        memo key.
        """
        roles = self._roles(node)
        inherited = self._from_roles.get((roles, section))
        if inherited is None:
            inherited = {}
            for role in roles:
                for name, entry in as_map(as_map(self._known.roles[role]).get(section)).items():
                    layer: Layer = (("roles", role, section, name), as_map(entry))
                    inherited[name] = (*inherited.get(name, ()), layer)
            self._from_roles[(roles, section)] = inherited
        own = as_map(as_map(self._known.nodes[node]).get(section))
        for name, layers in inherited.items():
            # shared by all nodes of these roles, under one memo key
            if name not in own:
                yield name, layers, ""
        for name, entry in own.items():
            entry = as_map(entry)
            below = inherited.get(name, ())
            yield name, (*below, (("nodes", node, section, name), entry)), repr(entry)

    def _resolve_subscription(
        self, base: Base, info: MethodInfo, layers: tuple[Layer, ...]
    ) -> ResolvedSubscription:
        entry = merge_layers(tree for _, tree in layers)
        enabled = entry.get("enabled") is not False
        merged = merge_layers((base.merged, entry))
        wants_ack = decide_ack(info, base, entry)
        settings = read_values(SubscriberSpec, merged)
        settings.pop("accept_from", None)
        if not wants_ack:
            if enabled and find_value(entry, ("ack", "on")) == AckOn.DONE:
                self._findings.add(
                    "E220",
                    find_origin(layers, ("ack", "on")) or layers[-1][0],
                    "`on: done` needs acknowledgements, and `mode` is none here",
                    hint="drop `on`, or write `ack: {mode: required, on: done}`",
                )
            # A default of `done` for the fleet means nothing where nothing is acknowledged.
            settings.pop("ack_on", None)
            self._check_kept(info, entry, layers)
            # as a default for the fleet it means nothing here, either
            settings.pop("delivery", None)
            settings.pop("stream", None)
        if info.acks_when_done is not None:
            settings["ack_on"] = AckOn.DONE if info.acks_when_done else AckOn.RECEIVED
        definition = self._known.user_methods.get(info.name)
        if definition is not None:
            settings["definition"] = definition
            self._check_runner(definition, entry, layers)
            if definition.timeout_s is not None and entry.get("method_timeout") is None:
                # nearer than what a layer says for all methods, further than the entry itself
                settings["method_timeout_s"] = definition.timeout_s
        relay_to = tuple(dict.fromkeys(entry.get("relay_to") or ()))
        if info.relays and enabled and not relay_to:
            self._findings.add(
                "E227",
                layers[-1][0],
                f"{info.name} needs `relay_to`: the nodes that it passes messages on to",
                hint="as in `relay_to: [ship1]`, and `relay_methods: [REQCliCommand]`",
                on_key=True,
            )
        return ResolvedSubscription(
            info=info,
            wants_ack=wants_ack,
            # kept apart: `local` in it is another node for each that shares this result
            senders=self._senders.resolve(
                entry.get("accept_from"), find_origin(layers, ("accept_from",)) or layers[-1][0]
            ),
            settings=settings,
            compression=entry.get("compression"),
            serialization=entry.get("serialization"),
            enabled=enabled,
            relay_to=relay_to,
        )

    def _resolve_publication(
        self, base: Base, layers: tuple[Layer, ...]
    ) -> ResolvedPublication | None:
        entry = merge_layers(tree for _, tree in layers)
        if entry.get("enabled") is False:
            return None
        path = layers[-1][0]
        missing = [name for name in ("to", "method") if not entry.get(name)]
        if missing:
            self._findings.add(
                "E212",
                path,
                f"a publish entry needs {' and '.join(f'`{name}`' for name in missing)}",
                hint="or `enabled: false` to switch an entry off",
                on_key=True,
            )
            return None
        self._check_schedule(layers, entry)
        info = self._known.methods.get(MethodName(entry["method"]))
        if info is None:
            return None
        merged = merge_layers((base.merged, entry))
        to = entry["to"]
        if not decide_ack(info, base, entry):
            self._check_kept(info, entry, layers)
        return ResolvedPublication(
            info=info,
            to=(to,) if isinstance(to, str) else tuple(dict.fromkeys(to)),
            wants_ack=decide_ack(info, base, entry),
            settings=read_section(PublisherSettings, merged),
            schedule=_make_schedule(entry, info),
            reply_method=entry.get("reply_method") or "",
        )

    def _check_runner(self, definition: UserMethod, entry: Tree, layers: tuple[Layer, ...]) -> None:
        """Each message would be refused."""
        if (
            entry.get("runner") is None
            or entry.get("enabled") is False
            or definition.exec is None
            or not definition.exec.environment
        ):
            return
        self._findings.add(
            "E209",
            find_origin(layers, ("runner",)) or layers[-1][0],
            f"a runner gives programs its own environment, and {definition.name} has an `environment`",
            hint="drop `runner`, or the method's `environment`",
            on_key=True,
        )

    def _check_kept(self, info: MethodInfo, entry: Tree, layers: tuple[Layer, ...]) -> None:
        """An entry that nothing acknowledges and that asks to be kept by a stream."""
        if entry.get("delivery") == Delivery.JETSTREAM and entry.get("enabled") is not False:
            self._findings.add(
                "E264",
                find_origin(layers, ("delivery",)) or layers[-1][0],
                f"`delivery: jetstream` needs acknowledgements, and {info.name} has none here",
                hint="drop `delivery`, or write `ack: {mode: required}` on both sides",
            )

    def _check_schedule(self, layers: tuple[Layer, ...], entry: Tree) -> None:
        if entry.get("every") is not None and entry.get("cron") is not None:
            self._findings.add(
                "E211",
                find_origin(layers, ("cron",)) or layers[-1][0],
                "`every` and `cron` exclude one another",
                on_key=True,
            )
        if entry.get("every") is not None and entry.get("cron") is None:
            for setting in CRON_ONLY:
                if find_value(entry, setting.keys) is not None:
                    self._findings.add(
                        "W202",
                        find_origin(layers, setting.keys) or layers[-1][0],
                        f"`{setting.keys[0]}` has no effect beside `every`, which runs by no clock on the wall",
                        hint="it belongs to `cron`",
                        on_key=True,
                    )
        if entry.get("every") is None and entry.get("cron") is None:
            for field in idle_schedule_fields(entry):
                self._findings.add(
                    "W203",
                    find_origin(layers, (field,)) or layers[-1][0],
                    f"`{field}` has no effect without `every` or `cron`",
                    hint="it belongs to messages that the entry itself produces",
                    on_key=True,
                )


def decide_ack(info: MethodInfo, base: Base, entry: Tree) -> bool:
    """Whether an entry stands on the ACK subject of its method.

    The entry's own word counts, unless the method makes no sense without. Below it, a method that
    the wire does not acknowledge stays so whatever the layers say: `defaults` must not move
    REQHello to a subject that no Go node uses.
    """
    if info.acks_when_done is not None:
        return True
    mode = find_value(entry, ACK_MODE.keys)
    if mode is None:
        if not info.acks_by_default:
            return False
        mode = find_value(base.merged, ACK_MODE.keys)
    return bool(mode != "none")


def _only_settings(owner: Tree) -> Tree:
    return {name: value for name, value in owner.items() if name not in NOT_SETTINGS}


def _make_schedule(entry: Tree, info: MethodInfo) -> Schedule | None:
    if entry.get("every") is None and entry.get("cron") is None:
        return None
    fields = read_values(Schedule, entry)
    if fields.get("every_s") is not None:
        fields.pop("cron", None)
    timeout = read_values(SubscriberDefaults, entry).get("method_timeout_s")
    if timeout is not None:
        fields["method_timeout_s"] = timeout
    fields["directory"] = fields.get("directory") or info.directory
    fields["file_name"] = fields.get("file_name") or info.file_name
    return Schedule(**fields)


def accepted_senders(resolved: ResolvedSubscription, node: NodeName) -> frozenset[NodeName] | None:
    """`accept_from` of a subscription of `node`."""
    if resolved.info.takes_own:
        return frozenset({NodeName(node)})
    senders = resolved.senders
    return senders - {OWN_NODE} | {node} if senders and OWN_NODE in senders else senders


# Whom `accept_from` means: nodes by name, and by role or label as targets of a command are chosen.
#
# It is resolved here, once for the fleet: nodes, the broker's permissions and `appliance can` see names alone.


class SenderNames:
    """Finds names for what is written. One per compilation."""

    def __init__(self, known: Known, findings: Findings) -> None:
        self._known = known
        self._findings = findings
        self._found: dict[str, frozenset[NodeName] | TargetsUnclear] = {}

    def resolve(
        self, senders: Sequence[str] | str | None, path: KeyPath
    ) -> frozenset[NodeName] | None:
        """The nodes meant by the `accept_from` at `path`; None for every declared one."""
        if senders is None:
            return None
        if isinstance(senders, str):
            return ANY_SENDER
        names: set[NodeName] = set()
        for index, text in enumerate(senders):
            if not is_selector(text):
                names.add(NodeName(text))
                continue
            if names_unknown_role(text, self._known.roles):
                continue  # told as such already
            found = self._choose(text)
            if isinstance(found, TargetsUnclear):
                self._findings.add(
                    "W281",
                    (*path, index),
                    f"nobody is let in by it: {found}",
                    hint="it lets nodes in as soon as there are some",
                )
            else:
                names |= found
        return frozenset(names)

    def _choose(self, text: str) -> frozenset[NodeName] | TargetsUnclear:
        if text not in self._found:
            try:
                chosen = choose(read_targets([text]), self._traits)
            except TargetsUnclear as error:
                self._found[text] = error
            else:
                self._found[text] = frozenset(map(NodeName, chosen.nodes))
        return self._found[text]

    @cached_property
    def _traits(self) -> dict[NodeName, NodeTraits]:
        return {
            NodeName(node): read_section(NodeTraits, as_map(tree))
            for node, tree in self._known.nodes.items()
        }
