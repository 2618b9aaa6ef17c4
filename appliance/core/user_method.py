"""Methods that the config declares: frozen values, compared and shown in plans like every other part of a spec.

Texts with placeholders stay texts here; a handler takes them apart when it is built. They were checked when the
config was read, so that cannot fail any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from appliance.core.arguments import NO_ARGUMENTS
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName, NodeName
from appliance.core.templates import fill_node

Pairs = tuple[tuple[str, str], ...]
"""A map of names to texts, in the order of the config."""

RESERVED_PREFIX = "REQ"
"""Names of methods that begin so are the wire's and this program's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCall:
    """A program to run. `argv[0]` holds no placeholder; no shell is between."""

    argv: tuple[str, ...]
    stdin: str = ""
    environment: Pairs = ()
    allow_options: bool = False
    """Whether a value may stand at the beginning of an element with a dash."""


class SecretHeader(NamedTuple):
    """A header whose value is read when it is needed: `kind` is `file`, `env` or `credential`."""

    header: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request to make. Scheme, host and port of `url` hold no placeholder."""

    url: str
    method: str = "GET"
    headers: Pairs = ()
    secret_headers: tuple[SecretHeader, ...] = ()
    body: str = ""
    allow_status: tuple[int, ...] = ()
    """Answers that count as success; empty for 200 to 299."""
    follow_redirects: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCall:
    """A file below the data directory to write."""

    name: str
    directory: str = ""
    mode: str = "append"
    content: str = "{data}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMethod:
    """One method of the config. Exactly one of `exec`, `http` and `file` is set; `args` is a JSON Schema as text."""

    name: MethodName
    summary: str = ""
    category: Category = Category.COMMAND
    args: str = NO_ARGUMENTS
    timeout_s: float | None = None
    on_crash: OnCrash = OnCrash.INTERRUPT
    exec: ExecCall | None = None
    http: HttpCall | None = None
    file: FileCall | None = None

    @property
    def info(self) -> MethodInfo:
        """What the rest of the program must know of it."""
        return MethodInfo(
            name=self.name,
            summary=self.summary or self._say(),
            category=self.category,
            replies=self.file is None,
            on_crash=self.on_crash,
            journals=self.file is not None and self.file.mode == "append",
            for_answers=self.file is not None,
        )

    def for_node(self, node: NodeName) -> UserMethod:
        """What a subscriber of `node` performs: the node's name filled in, and nothing that changes nothing there."""

        def fill(text: str) -> str:
            return fill_node(text, node)

        return replace(
            self,
            summary="",
            timeout_s=None,
            exec=_map_texts(self.exec, fill),
            http=_map_texts(self.http, fill),
            file=_map_texts(self.file, fill),
        )

    def _say(self) -> str:
        if self.exec is not None:
            return f"Run {self.exec.argv[0] if self.exec.argv else 'a program'}."
        if self.http is not None:
            return f"Make an HTTP {self.http.method} request."
        return "Write a file below the data directory."


def _map_texts(call: Any, change: Callable[[str], str]) -> Any:
    """The same call with every text changed."""
    if call is None:
        return None
    return replace(
        call, **{item.name: _map(getattr(call, item.name), change) for item in fields(call)}
    )


def _map(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple) and not isinstance(value, SecretHeader):
        return tuple(_map(item, change) for item in value)
    return value


NO_METHODS: Mapping[MethodName, UserMethod] = MappingProxyType({})
