"""The words that shells complete with: nodes, targets, methods and jobs of the daemon, or of the config where none answers.

Called by the completion in `packaging/completion.py`. It is quick and silent: whatever goes wrong, there are no words.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.api.model import Fleet, FleetNode, Jobs, Methods
from appliance.cli.api_client import ApiClient
from appliance.cli.contexts import HERE, contexts_path, read_contexts
from appliance.cli.options import StateDirOption, split_paths
from appliance.cli.server_options import connect
from appliance.core.targets import EVERYTHING
from appliance.errors import ApplianceError

PATIENCE_S = 1.5
"""A key was pressed: words that come later are no help."""
MAX_JOBS = 100
"""The newest of them: who looks for an older one has its id from elsewhere."""
SYSTEM_CONFIG = Path("/etc/appliance")
NAME = "complete-words"


class Words(StrEnum):
    """What may stand in a place."""

    NODES = "nodes"
    TARGETS = "targets"
    METHODS = "methods"
    JOBS = "jobs"
    CONTEXTS = "contexts"


def register(app: typer.Typer) -> None:
    """Add the command, which no help shows."""
    app.command(NAME, hidden=True)(complete_words)


def complete_words(
    kinds: Annotated[list[Words], typer.Argument(metavar="KIND", help="nodes, targets …")],
    state_dir: StateDirOption = None,
) -> int:
    """Print the words that may stand in a place, one a line."""
    # NB: nobody sees what is said here, and a shell that waits takes no key
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    found: list[str] = []
    for kind in kinds:
        if kind is Words.CONTEXTS:
            found += _read_contexts()
            continue
        ask, read = _WAYS[kind]
        try:
            found += ask(connect(state_dir))
        except (ApplianceError, typer.BadParameter, OSError):
            found += read(_read_config())
    print("\n".join(dict.fromkeys(found)))  # noqa: T201
    return 0


def _ask_nodes(client: ApiClient) -> list[str]:
    return [item.node for item in client.get("/api/v1/targets", Fleet).value.nodes]


def _ask_targets(client: ApiClient) -> list[str]:
    return list(_targets_of(client.get("/api/v1/targets", Fleet).value.nodes))


def _ask_methods(client: ApiClient) -> list[str]:
    return [item.name for item in client.get("/api/v1/methods", Methods).value.methods]


def _ask_jobs(client: ApiClient) -> list[str]:
    return [item.id for item in client.get(f"/api/v1/jobs?limit={MAX_JOBS}", Jobs).value.jobs]


def _read_no_jobs(_tree: dict[str, Any]) -> list[str]:
    return []


def _read_contexts() -> list[str]:
    try:
        return [*read_contexts(contexts_path()).by_name, HERE]
    except ApplianceError:
        return []


def _targets_of(nodes: list[FleetNode]) -> Iterator[str]:
    yield from (item.node for item in nodes)
    yield from sorted({f"@{role}" for item in nodes for role in item.roles})
    yield from sorted({f"{name}={value}" for item in nodes for name, value in item.labels.items()})
    yield from ((EVERYTHING, "local") if nodes else ())


def _read_config() -> dict[str, Any]:
    """The config as far as it can be read: of the environment, else of this machine."""
    from appliance.config.merge import read_config

    given = split_paths(os.environ.get("APPLIANCE_CONFIG", ""))
    paths = given or ([str(SYSTEM_CONFIG)] if SYSTEM_CONFIG.is_dir() else [])
    try:
        tree = read_config(paths, os.environ).tree if paths else None
    except (ApplianceError, OSError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _read_nodes(tree: dict[str, Any]) -> list[str]:
    return [item.node for item in _nodes_of(tree)]


def _read_targets(tree: dict[str, Any]) -> list[str]:
    return list(_targets_of(_nodes_of(tree)))


def _nodes_of(tree: dict[str, Any]) -> list[FleetNode]:
    nodes = tree.get("nodes")
    return [
        FleetNode(node=str(name), roles=_texts(node, "roles"), labels=_labels(node))
        for name, node in (nodes.items() if isinstance(nodes, dict) else ())
    ]


def _texts(node: Any, key: str) -> list[str]:
    found = node.get(key) if isinstance(node, dict) else None
    return [str(item) for item in found] if isinstance(found, list) else []


def _labels(node: Any) -> dict[str, str]:
    found = node.get("labels") if isinstance(node, dict) else None
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _read_methods(tree: dict[str, Any]) -> list[str]:
    from appliance.methods.registry import METHOD_TABLE

    own = tree.get("methods")
    declared = [name for name, info in METHOD_TABLE.items() if not info.is_companion]
    return [*map(str, own if isinstance(own, dict) else ()), *sorted(declared)]


_Way = tuple[Callable[[ApiClient], list[str]], Callable[[dict[str, Any]], list[str]]]
_WAYS: dict[Words, _Way] = {
    Words.NODES: (_ask_nodes, _read_nodes),
    Words.TARGETS: (_ask_targets, _read_targets),
    Words.METHODS: (_ask_methods, _read_methods),
    Words.JOBS: (_ask_jobs, _read_no_jobs),
}
