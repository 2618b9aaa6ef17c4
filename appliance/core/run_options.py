"""What the command line asks of a daemon, beside the config itself, and which of the nodes it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.core.names import NodeName
from appliance.core.suggest import did_you_mean, find_nearest
from appliance.errors import RunNodesUnclear


@dataclass(slots=True, kw_only=True)
class RunOptions:
    """The flags of `run` after environment and defaults. None means: as the config says."""

    paths: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    all_nodes: bool = False
    state_dir: str | None = None
    """From flag or environment; it wins over `state.dir` of the config."""
    default_state_dir: str = ""
    """Used when neither flag, environment nor config names one."""
    log_level: str | None = None
    log_format: str | None = None
    signed_by: str | None = None
    """A file of public keys; with it only commits that one of them signed are taken, whatever the config says."""


def choose_run_nodes(
    declared: Iterable[str],
    asked: Sequence[str] | None,
    *,
    all_nodes: bool,
    hostname: str,
) -> tuple[NodeName, ...]:
    """The nodes to run, in the order of the config.

    Without a wish it is the node of this host's name, full or up to its first dot.

    Raises:
        RunNodesUnclear: an asked node is not declared, or none is asked and the host is no node.
    """
    names = [NodeName(name) for name in declared]
    if all_nodes:
        return tuple(names)
    if asked:
        for name in asked:
            if name not in names:
                nearest = find_nearest(name, names)
                raise RunNodesUnclear(
                    f"node {name[:80]!r} is not declared{did_you_mean(nearest)}", names
                )
        # in the order of the config, so that the same choice in other words is the same set
        return tuple(name for name in names if name in asked)
    for candidate in (hostname, hostname.partition(".")[0]):
        if candidate in names:
            return (NodeName(candidate),)
    raise RunNodesUnclear(f"this host's name {hostname[:80]!r} is no declared node", names)
