"""Whom `accept_from` means: nodes by name, and by role or label as targets of a command are chosen.

It is resolved here, once for the fleet: nodes, the broker's permissions and `appliance can` see names alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from appliance.config.compiler.findings import Findings, KeyPath
from appliance.config.compiler.layers import as_map, read_section
from appliance.config.compiler.local_checks import Known, names_unknown_role
from appliance.core.names import NodeName
from appliance.core.specs import ANY_SENDER, NodeTraits
from appliance.core.targets import choose, is_selector, read_targets
from appliance.errors import TargetsUnclear


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
