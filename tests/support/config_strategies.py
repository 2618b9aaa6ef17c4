"""Hypothesis strategies for configs: valid ones that a daemon can run by itself, and ones with a small mistake.

Trees are plain values; `to_yaml` writes them. Valid ones use an embedded broker, no fixed port and no path, so that
they can be run anywhere.
"""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import strategies as st

NODE_NAMES = ("central", "ship1", "ship2", "north.buoy", "relay_4", "no")
METHODS = (
    "REQPing",
    "REQPong",
    "REQToConsole",
    "REQToFile",
    "REQToFileAppend",
    "REQHello",
    "REQErrorLog",
    "REQCliCommand",
    "REQOpProcessList",
)
DURATIONS = ("250ms", "1s", "5s", "1m30s", "1.5h", 1, 2.5, 30)

Tree = dict[str, Any]


def to_yaml(tree: Any) -> str:
    """The tree as a config file."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    return st.fixed_dictionaries({}, optional=fields)


_ACK_LIMITS = {
    "timeout": st.sampled_from(DURATIONS),
    "retries": st.integers(0, 10),
    "retry_wait": st.sampled_from(("0s", "100ms", 1)),
    "expires": st.sampled_from(("1m", "24h")),
}


def worker_settings() -> st.SearchStrategy[Tree]:
    """Settings for `defaults`, a role or a node; `ack.mode` is left alone, so that the two ends agree."""
    return _some(
        ack=_some(on=st.sampled_from(("received", "done")), **_ACK_LIMITS),
        serialization=st.sampled_from(("cbor", "gob")),
        compression=st.sampled_from(("zstd", "none")),
        concurrency=st.integers(1, 32),
        window=st.sampled_from((1, 16, 256)),
        backlog=st.integers(16, 1024),
        method_timeout=st.sampled_from(DURATIONS),
        max_output_bytes=st.integers(1024, 65_536),
        dedupe=st.booleans(),
        rerun=st.booleans(),
    )


@st.composite
def _subscriptions(draw: st.DrawFn, nodes: list[str]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for method in draw(st.lists(st.sampled_from(METHODS), unique=True, max_size=5)):
        entry = draw(
            st.none()
            | _some(
                concurrency=st.integers(1, 8),
                dedupe=st.booleans(),
                ack=_some(mode=st.sampled_from(("required", "none"))),
                accept_from=st.just("any") | st.just(list(nodes)),
            )
        )
        if method == "REQCliCommand" and entry is not None and draw(st.booleans()):
            entry["allow_commands"] = draw(
                st.just("any") | st.just([["uptime"], ["echo", "**"], ["ls", "*"]])
            )
        entries[method] = entry
    return entries


def _wants_ack(method: str, entry: Tree | None) -> bool:
    mode = ((entry or {}).get("ack") or {}).get("mode")
    return mode == "required" if mode else method != "REQHello"


def _methods() -> st.SearchStrategy[Tree]:
    """Methods of the config's own that do no harm."""
    arguments = st.sampled_from(
        (
            {"type": "array"},
            {"prefixItems": [{"title": "word", "enum": ["a", "b"]}, {"type": "integer"}]},
            {"items": {"$ref": "#/$defs/word"}, "$defs": {"word": {"maxLength": 3}}},
        )
    )
    common = {"summary": st.just("Something"), "timeout": st.sampled_from(DURATIONS)}
    return _some(
        Echo=st.fixed_dictionaries(
            {"exec": st.just(["echo", "{args.0}", "{args.*}", "${node}"]), "args": arguments},
            optional={**common, "stdin": st.just("{data}"), "allow_options": st.booleans()},
        ),
        Note=st.fixed_dictionaries(
            {"file": st.just({"directory": "notes", "name": "{from}.log"})},
            optional={**common, "kind": st.sampled_from(("command", "event"))},
        ),
        Hook=st.fixed_dictionaries(
            {"http": st.just({"url": "http://127.0.0.1/{id}", "headers": {"X-A": "{to}"}})},
            optional={**common, "on_crash": st.sampled_from(("interrupt", "rerun"))},
        ),
    )


@st.composite
def valid_configs(draw: st.DrawFn) -> Tree:
    """A config that `check` accepts (warnings are possible)."""
    names = draw(st.lists(st.sampled_from(NODE_NAMES), unique=True, min_size=1, max_size=4))
    tree: Tree = {"version": 1, "broker": {"embedded": True}, "nodes": {}}
    if draw(st.booleans()):
        tree["defaults"] = draw(worker_settings())
    for name in names:
        tree["nodes"][name] = {
            "subscribe": draw(_subscriptions(names)),
            **draw(st.just({}) | worker_settings()),
        }
    if draw(st.booleans()):
        tree["roles"] = {"listener": {"subscribe": {"REQToConsole": {}}}}
        tree["nodes"][names[0]]["roles"] = ["listener"]
        tree["nodes"][names[0]]["subscribe"].pop("REQToConsole", None)
    ends: dict[tuple[str, str], bool] = {}
    for name in names:
        for method, entry in tree["nodes"][name]["subscribe"].items():
            to = "errorCentral" if method == "REQErrorLog" else name
            if to == "errorCentral" and (to, method) in ends:
                # Several nodes may share this subject; here they agree.
                tree["nodes"][name]["subscribe"][method] = None
                entry = None
                ends[to, method] = True
                for other in names:
                    if method in tree["nodes"][other]["subscribe"]:
                        tree["nodes"][other]["subscribe"][method] = None
                continue
            ends[to, method] = _wants_ack(method, entry)
    for name in names:
        for to, method in draw(
            st.lists(st.sampled_from(sorted(ends)), unique=True, max_size=3)
            if ends
            else st.just([])
        ):
            entry = {"to": to, "method": method}
            entry["ack"] = {"mode": "required" if ends[to, method] else "none"}
            if draw(st.booleans()):
                entry |= {"every": "1h", "data": ["from ${node}"]}
            publish = tree["nodes"][name].setdefault("publish", {})
            publish[f"p{len(publish)}"] = entry
    if draw(st.booleans()):
        tree["methods"] = draw(_methods())
        for method in tree["methods"]:
            tree["nodes"][names[0]]["subscribe"][method] = None
    if draw(st.booleans()):
        tree["reload"] = {"max_cancel": draw(st.sampled_from(("50%", "100%", 25)))}
    if draw(st.booleans()):
        tree["limits"] = draw(_some(max_message_bytes=st.integers(1024, 1_000_000)))
    return tree


def paths_of(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path below the root."""
    found = []
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        found.append((*above, key))
        found += paths_of(value, (*above, key))
    return found


_ODD_VALUES = st.sampled_from(
    (
        None,
        True,
        -1,
        0,
        10**9,
        1.5,
        "",
        "5 seconds",
        "nobody",
        "any",
        "${node}",
        [],
        {},
        ["x"],
        {"x": 1},
    )
)


@st.composite
def slightly_broken_configs(draw: st.DrawFn) -> Tree:
    """A valid config with one thing changed at random; most are refused, a few happen to be valid still."""
    tree = copy.deepcopy(draw(valid_configs()))
    path = draw(st.sampled_from(paths_of(tree)))
    holder: Any = tree
    for part in path[:-1]:
        holder = holder[part]
    match draw(st.sampled_from(("replace", "remove", "rename", "add"))):
        case "remove":
            del holder[path[-1]]
        case "rename" if isinstance(holder, dict):
            holder[draw(st.sampled_from(("x", f"{path[-1]}s", "a b", "REQPing")))] = holder.pop(
                path[-1]
            )
        case "add" if isinstance(holder, dict):
            holder[draw(st.sampled_from(("acks", "to", "every", "ack", "roles")))] = draw(
                _ODD_VALUES
            )
        case _:
            holder[path[-1]] = draw(_ODD_VALUES)
    return tree
