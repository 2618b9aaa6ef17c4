"""From an entry of `methods` in the config to its value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from appliance.core.fields import METHOD_FIELDS
from appliance.core.layers import Tree, as_map, convert
from appliance.core.method import OnCrash
from appliance.core.names import Category, MethodName
from appliance.core.user_method import ExecCall, FileCall, HttpCall, SecretHeader, UserMethod

_TIMEOUT = next(setting for setting in METHOD_FIELDS if setting.keys == ("timeout",))


def make_method(name: str, entry: Tree, arguments: Mapping[str, Any] | None) -> UserMethod:
    """The value of one entry; faults in it were told before and make no difference here."""
    file = _make_file(entry)
    default = OnCrash.RERUN if file is not None else OnCrash.INTERRUPT
    timeout = entry.get("timeout")
    return UserMethod(
        name=MethodName(name),
        summary=entry.get("summary") or "",
        category=Category.EVENT if entry.get("kind") == "event" else Category.COMMAND,
        args=json.dumps(arguments or {}, sort_keys=True, ensure_ascii=False, separators=(",", ":")),
        timeout_s=_read_time(timeout),
        on_crash=OnCrash(entry.get("on_crash") or default),
        exec=_make_exec(entry),
        http=_make_http(entry),
        file=file,
    )


def _read_time(timeout: object) -> float | None:
    if timeout is None:
        return None
    try:
        return float(convert(_TIMEOUT, timeout))
    except ValueError:
        return None  # told by `check_bounds`


def _make_exec(entry: Tree) -> ExecCall | None:
    argv = entry.get("exec")
    if argv is None:
        return None
    return ExecCall(
        argv=tuple(map(str, argv)),
        stdin=entry.get("stdin") or "",
        environment=_pairs(entry.get("environment")),
        allow_options=bool(entry.get("allow_options")),
    )


def _make_http(entry: Tree) -> HttpCall | None:
    if entry.get("http") is None:
        return None
    http = as_map(entry["http"])
    return HttpCall(
        url=http.get("url") or "",
        method=http.get("method") or "GET",
        headers=_pairs(http.get("headers")),
        secret_headers=tuple(
            SecretHeader(header, kind, name)
            for header, value in as_map(http.get("headers")).items()
            for kind, name in as_map(value).items()
        ),
        body=http.get("body") or "",
        allow_status=tuple(int(status) for status in http.get("allow_status") or ()),
        follow_redirects=bool(http.get("follow_redirects")),
    )


def _make_file(entry: Tree) -> FileCall | None:
    if entry.get("file") is None:
        return None
    file = as_map(entry["file"])
    content = file.get("content")
    return FileCall(
        directory=file.get("directory") or "",
        name=file.get("name") or "",
        mode=file.get("mode") or "append",
        content="{data}" if content is None else content,
    )


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    return tuple((name, text) for name, text in as_map(value).items() if isinstance(text, str))
