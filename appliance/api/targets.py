"""Which nodes of the fleet a command is for, by the config in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from appliance.api.fleet import show_labels
from appliance.api.model import Chosen, Fleet, FleetNode, NotChosen
from appliance.api.requests import ChooseRequest
from appliance.api.submission import LOCAL, Submission, describe_unknown, describe_unsubscribed
from appliance.core.names import ERROR_CENTRAL
from appliance.core.specs import DesiredState
from appliance.core.targets import choose, natural_key, read_targets, split_targets
from appliance.errors import RequestInvalid, TargetsUnclear
from appliance.reconcile.reconciler import Reconciler


@dataclass(frozen=True, slots=True)
class TargetChooser:
    """Asked from any thread: it reads one config, which never changes."""

    reconciler: Reconciler
    submission: Submission

    def fleet(self) -> Fleet:
        """Every declared node, in the order that people count in."""
        desired = self._desired()
        return Fleet(
            nodes=[
                FleetNode(
                    node=node,
                    roles=list(desired.traits[node].roles),
                    labels=show_labels(desired.traits[node], desired.hidden),
                )
                for node in sorted(desired.traits, key=natural_key)
            ]
        )

    def choose(self, asked: ChooseRequest) -> Chosen:
        """The nodes that are meant.

        A node that a pattern matches and that subscribes other methods only is no target of this one; one that is named
        is asked all the same, as another daemon's config may know it better.

        Raises:
            TargetsUnclear: a target is none, or means no node.
        """
        desired = self._desired()
        own = self._own_node(asked)
        targets = read_targets(
            _without_local(asked.targets, own), _without_local(asked.exclude, own)
        )
        choice = choose(targets, desired.traits)
        method = asked.method
        if method is None:
            return Chosen(nodes=list(choice.nodes), notes=list(_notes(desired, choice.nodes, None)))
        is_told = {str(node) for node, _ in desired.declared_acks}
        found = Chosen()
        for node in choice.nodes:
            why = describe_unsubscribed(desired, node, method)
            if why is not None and node in is_told and node not in choice.named:
                found.left_out.append(NotChosen(node=node, why=why))
            else:
                found.nodes.append(node)
        if not found.nodes:
            raise TargetsUnclear(
                f"{len(found.left_out)} nodes match, and none of them subscribes {method[:60]}"
                if len(found.left_out) > 1
                else found.left_out[0].why
            )
        found.notes = list(_notes(desired, found.nodes, method))
        return found

    def _desired(self) -> DesiredState:
        applied = self.reconciler.applied
        if applied is None:
            raise RequestInvalid("no config is in force yet")
        return applied.desired

    def _own_node(self, asked: ChooseRequest) -> str:
        """What `local` stands for, asked only where it is said: several nodes may run here."""
        texts = split_targets([*asked.targets, *asked.exclude])
        if LOCAL not in (text.removeprefix("!") for text in texts):
            return LOCAL
        return self.submission.sender(asked.from_node, LOCAL, asked.method or "")


def _without_local(texts: list[str], own: str) -> list[str]:
    """Targets with the name of the own node in the place of the word for it."""
    words = {LOCAL: own, f"!{LOCAL}": f"!{own}"}
    return [words.get(text, text) for text in split_targets(texts)]


def _notes(desired: DesiredState, nodes: Iterable[str], method: str | None) -> Iterator[str]:
    """Words for nodes that no config names, or not with this method."""
    for node in nodes:
        if node == ERROR_CENTRAL:
            continue
        note = describe_unknown(desired, node)
        if note is None and method is not None:
            note = describe_unsubscribed(desired, node, method)
        if note is not None:
            yield note
