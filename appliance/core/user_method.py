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
from appliance.core.settings import (
    REQUIRED,
    TEXT,
    ReloadClass,
    Shape,
    duration,
    section,
    setting,
    switch,
    text,
    texts,
    word,
)
from appliance.core.templates import fill_node

Pairs = tuple[tuple[str, str], ...]
"""A map of names to texts, in the order of the config."""

RESERVED_PREFIX = "REQ"
"""Names of methods that begin so are the wire's and this program's own."""


_SWAP = ReloadClass.SWAP


def _read_pairs(value: Mapping[str, object]) -> Pairs:
    return tuple((name, text) for name, text in value.items() if isinstance(text, str))


def _pairs(words: str, name: Shape, item: Shape) -> Pairs:
    return setting(
        (),
        words,
        type=("object", "null"),
        expects="a map from name to text",
        shape={"propertyNames": {"type": "string", **name}, "additionalProperties": item},
        read=_read_pairs,
        reload=_SWAP,
        tells_default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCall:
    """A program to run. `argv[0]` holds no placeholder; no shell is between."""

    argv: tuple[str, ...] = texts(
        REQUIRED,
        "A program and its arguments, run without a shell. `{args.N}`, `{from}`, `{to}` and `{id}` are filled in "
        "within an element; `{args.*}` as an element of its own stands for all further arguments. An element naming "
        "an argument that is not given is left out.",
        "a list of texts: program and arguments",
        shape={"minItems": 1, "maxItems": 256},
        keys=("exec",),
        reload=_SWAP,
    )
    stdin: str = text(
        "",
        "What the program reads, such as `{data}`; nothing when empty. `exec` only.",
        reload=_SWAP,
    )
    allow_options: bool = switch(
        False,
        "Whether a value may put a dash at the beginning of an element of `exec`, where programs look for options. "
        "`exec` only.",
        reload=_SWAP,
    )
    environment: Pairs = _pairs(
        "Variables beside the usual ones of the daemon (PATH, HOME, LANG and the like; `pass_environment` hands on more). "
        "`exec` only.",
        {
            "x-expects": "a variable's name: letters, digits and '_'",
            "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        },
        TEXT,
    )


class SecretHeader(NamedTuple):
    """A header whose value is read when it is needed: `kind` is `file`, `env` or `credential`."""

    header: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request to make. Scheme, host and port of `url` hold no placeholder."""

    method: str = word(
        "GET",
        "The request's method.",
        ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        reload=_SWAP,
    )
    url: str = text(
        REQUIRED,
        "The address. Placeholders may stand in path and query, and are written percent-encoded there.",
        "an address such as https://host/path",
        shape={"minLength": 1, "maxLength": 4096},
        reload=_SWAP,
    )
    headers: Pairs = _pairs(
        "Headers of the request, each one line. A header naming an argument that is not given is left out.",
        {"x-expects": "a header's name", "pattern": "^[A-Za-z0-9!#$&'*+.^_|~-]+$"},
        {"$ref": "#/$defs/text_or_secret"},
    )
    secret_headers: tuple[SecretHeader, ...] = ()
    """Those of `headers` that name where they are read from."""
    body: str = text("", "The request's body, such as `{data}`.", reload=_SWAP)
    allow_status: tuple[int, ...] = texts(
        (),
        "Status codes that count as success; 200 to 299 when missing.",
        "a list of status codes",
        {"type": "integer", "x-expects": "a status code", "minimum": 100, "maximum": 599},
        shape={"minItems": 1},
        read=lambda codes: tuple(map(int, codes)),
        reload=_SWAP,
        tells_default=False,
    )
    follow_redirects: bool = switch(
        False, "Whether to go where the answer redirects to, another host included.", reload=_SWAP
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCall:
    """A file below the data directory to write."""

    directory: str = text(
        "",
        "Its directory below the data directory. A placeholder is one name, never a path.",
        reload=_SWAP,
    )
    name: str = text(
        REQUIRED,
        "Its name. A placeholder is one name, never a path.",
        shape={"minLength": 1},
        reload=_SWAP,
    )
    mode: str = word(
        "append", "Add to the file, or replace its content.", ("append", "write"), reload=_SWAP
    )
    content: str = text("{data}", "What is written.", reload=_SWAP)

    @property
    def adds_up(self) -> bool:
        """Whether data in several messages makes the file that it would make in one."""
        return self.mode == "append" and self.content == "{data}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMethod:
    """One method of the config. Exactly one of `exec`, `http` and `file` is set; `args` is a JSON Schema as text."""

    name: MethodName
    summary: str = text(
        "", "What it does, for `appliance methods` and `status`.", shape={"maxLength": 200}
    )
    category: Category = word(
        Category.COMMAND,
        "The first half of its subject's kind, a command or an event. An event that writes a file may also carry "
        "answers.",
        ("command", "event"),
        keys=("kind",),
        read=lambda kind: Category(kind.title()),
        reload=_SWAP,
    )
    args: str = setting(
        NO_ARGUMENTS,
        "A JSON Schema (2020-12) of the list of arguments. Items of type integer, number or boolean are read from "
        "their text. Without it no argument is taken.",
        type="object",
        expects="a JSON Schema, a map",
        reload=_SWAP,
        tells_default=False,
    )
    timeout_s: float | None = duration(
        None,
        "Time it has, unless the message or the subscription says otherwise; `method_timeout` of the layers when "
        "missing.",
        0.01,
        366 * 86_400,
    )
    on_crash: OnCrash = word(
        OnCrash.INTERRUPT,
        "What becomes of a message that was being handled when the daemon died: `interrupt` reports it, `rerun` "
        "handles it again. Without it: `rerun` for files, else `interrupt`.",
        ("interrupt", "rerun"),
        read=OnCrash,
        reload=_SWAP,
        tells_default=False,
    )
    exec: ExecCall | None = section(None, is_flat=True, spec=ExecCall)
    http: HttpCall | None = section(
        None, "A request to make; the answer's body is the reply.", spec=HttpCall
    )
    file: FileCall | None = section(
        None, "A file below the data directory to write.", spec=FileCall
    )

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
            adds_up=self.file is not None and self.file.adds_up,
            runs_programs=self.exec is not None,
            is_audited=self.file is None,
            options=frozenset({"runner"}) if self.exec is not None else frozenset(),
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
