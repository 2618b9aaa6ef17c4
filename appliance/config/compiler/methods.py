"""Methods that the config declares: from their section to values, and everything that is wrong with them.

The shape is settled before. Checked here: names, that there is one thing to do, that every placeholder is one and
stands where it may, and that no value of a message could change which program runs, which host is asked, or whose
directory is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from appliance.config.compiler.findings import Findings, KeyPath
from appliance.config.compiler.interpreters import find_faults, first_free, is_loader
from appliance.config.compiler.layers import Tree, as_map, find_value, read_values
from appliance.config.compiler.local_checks import check_program_word
from appliance.config.compiler.section_checks import check_bounds
from appliance.core.arguments import NO_ARGUMENTS, most_arguments
from appliance.core.file_names import check_parts
from appliance.core.method import MethodTable, OnCrash
from appliance.core.names import MethodName, NodeName
from appliance.core.settings import leaves_of, settings_of
from appliance.core.suggest import shorten
from appliance.core.templates import (
    KNOWN,
    Placeholder,
    Source,
    Template,
    fill_node,
    parse_template,
    placeholders_of,
)
from appliance.core.user_method import RESERVED_PREFIX, ExecCall, SecretHeader, UserMethod
from appliance.errors import PathForbidden

# From an entry of `methods` in the config to its value.


def make_method(name: str, entry: Tree, arguments: Mapping[str, Any] | None) -> UserMethod:
    """The value of one entry; faults in it were told before and make no difference here."""
    values = read_values(UserMethod, entry)
    if "file" in values:
        values.setdefault("on_crash", OnCrash.RERUN)
    if "http" in values:
        secrets = tuple(
            SecretHeader(header, kind, source)
            for header, value in as_map(find_value(entry, ("http", "headers"))).items()
            for kind, source in as_map(value).items()
        )
        values["http"] = replace(values["http"], secret_headers=secrets)
    values["args"] = json.dumps(
        arguments or {}, sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    return UserMethod(name=MethodName(name), **values)


SchemaCheck = Callable[[Mapping[str, Any]], tuple[KeyPath, str] | None]
"""Where and why a map is no usable JSON Schema of arguments. Handed in: the library stays out of the core."""

ArgumentCheck = Callable[[str, tuple[str, ...]], str | None]
"""Why arguments do not fit a schema (as text). Handed in, too."""

ACTIONS = ("exec", "http", "file")
_EXEC_ONLY = tuple(item.attr for item in settings_of(ExecCall) if not item.is_required)

_SOME_NODE = NodeName("node")
_PLAIN = frozenset({Source.ARGUMENT, Source.FROM, Source.TO, Source.ID})
_WITH_DATA = _PLAIN | {Source.DATA}
_WITH_REST = _PLAIN | {Source.REST}

_URL_HEAD = re.compile(
    r"https?://(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_URL_REST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OWN_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say how the request itself is carried; the client sets them."""


SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def read_methods(
    findings: Findings, tree: Tree, builtin: MethodTable, find_schema_problem: SchemaCheck
) -> dict[MethodName, UserMethod]:
    """Every method of the section, the faulty ones too: what refers to them has no fault of its own."""
    methods: dict[MethodName, UserMethod] = {}
    for name, entry in as_map(tree.get("methods")).items():
        path: KeyPath = ("methods", name)
        if _is_reserved(findings, path, name, builtin):
            continue
        entry = as_map(entry)
        check_bounds(findings, path, leaves_of(UserMethod), entry)
        arguments = _read_arguments(findings, path, entry, find_schema_problem)
        _Checker(findings, path, arguments).check(entry)
        methods[MethodName(name)] = make_method(name, entry, arguments)
    return methods


def _is_reserved(findings: Findings, path: KeyPath, name: str, builtin: MethodTable) -> bool:
    if name in builtin:
        reason = f"{name} is a method of the program itself"
    elif name.startswith(RESERVED_PREFIX):
        reason = f"names that begin with {RESERVED_PREFIX} are for the wire's own methods"
    else:
        return False
    findings.add("E230", path, reason, hint="choose another name", on_key=True)
    return True


def _read_arguments(
    findings: Findings, path: KeyPath, entry: Tree, find_schema_problem: SchemaCheck
) -> Mapping[str, Any] | None:
    """The schema of the arguments; None when it cannot be used."""
    schema = entry.get("args")
    if schema is None:
        return dict(json.loads(NO_ARGUMENTS))
    problem = find_schema_problem(schema)
    if problem is None:
        return as_map(schema)
    where, reason = problem
    findings.add(
        "E233",
        (*path, "args", *where),
        reason,
        hint="`args` is a JSON Schema (2020-12) of the list of arguments",
    )
    return None


class _Checker:
    """The checks of one method."""

    def __init__(
        self, findings: Findings, path: KeyPath, arguments: Mapping[str, Any] | None
    ) -> None:
        self._findings = findings
        self._path = path
        self._arguments = arguments
        self._most = most_arguments(arguments) if arguments is not None else None

    def check(self, entry: Tree) -> None:
        """Whatever can be wrong beyond the schema of the arguments."""
        given = [name for name in ACTIONS if entry.get(name) is not None]
        if len(given) != 1:
            said = f"both `{given[0]}` and `{given[1]}`" if given else "nothing to do"
            self._findings.add(
                "E231",
                (*self._path, given[1]) if given else self._path,
                f"{said}: a method has exactly one of `exec`, `http` and `file`",
                on_key=True,
            )
        for name in _EXEC_ONLY:
            if entry.get(name) is not None and given and "exec" not in given:
                self._findings.add(
                    "E231",
                    (*self._path, name),
                    f"`{name}` belongs to `exec`, and this method has `{given[0]}`",
                    on_key=True,
                )
        if entry.get("exec") is not None:
            self._check_exec(entry)
        if entry.get("http") is not None:
            self._check_http(as_map(entry["http"]))
        if entry.get("file") is not None:
            self._check_file(as_map(entry["file"]))

    def _check_exec(self, entry: Tree) -> None:
        elements: list[Template] = []
        for index, text in enumerate(entry["exec"]):
            keys = ("exec", index)
            template = self._parse(keys, text, _WITH_REST)
            elements.append(template or ())
            if template is not None:
                reason = _find_element_fault(index, template)
                if reason is not None:
                    self._add("E232", keys, reason)
            if "\0" in text:
                self._add("E232", keys, "no program can be given a NUL")
            if index == 0:
                check_program_word(self._findings, (*self._path, *keys), text)
        stdin = self._parse(("stdin",), entry.get("stdin") or "", _WITH_DATA)
        for place, reason in find_faults(elements, stdin or (), self._arguments):
            self._add(
                "E237",
                ("stdin",) if place is None else ("exec", place),
                reason,
                hint='hand it over as data: [sh, -c, \'restart "$1"\', sh, "{args.0}"]',
            )
        for name, text in as_map(entry.get("environment")).items():
            template = self._parse(("environment", name), text, _PLAIN)
            found = first_free(template or (), self._arguments)
            if found is not None and is_loader(name):
                self._add(
                    "E237",
                    ("environment", name),
                    f"{found} would stand in {name}, by which programs are loaded: a peer could have anything run",
                )

    def _check_http(self, http: Tree) -> None:
        url = http.get("url") or ""
        template = self._parse(("http", "url"), url, _PLAIN)
        if template is not None:
            reason = _find_url_fault(template)
            if reason is not None:
                self._add("E234", ("http", "url"), reason)
        for name, text in as_map(http.get("headers")).items():
            keys = ("http", "headers", name)
            if name.lower() in _OWN_HEADERS:
                self._add("E234", keys, f"{name} is set by the client itself", on_key=True)
            if not isinstance(text, str):
                continue
            if name.lower() in SECRET_HEADERS:
                self._add(
                    "E109",
                    keys,
                    "a secret may not stand in a config",
                    hint="write where its whole value is read from: {file: PATH} or {env: NAME}",
                )
                continue
            self._parse(keys, text, _PLAIN)
            if any(sign in text for sign in "\r\n\0"):
                self._add("E234", keys, "a header is one line")
        self._parse(("http", "body"), http.get("body") or "", _WITH_DATA)

    def _check_file(self, file: Tree) -> None:
        for key in ("directory", "name"):
            text = file.get(key) or ""
            template = self._parse(("file", key), text, _PLAIN)
            if template is not None:
                reason = _find_path_fault(template, is_name=key == "name")
                if reason is not None:
                    self._add("E235", ("file", key), reason)
        self._parse(("file", "content"), file.get("content") or "", _WITH_DATA)

    def _parse(self, keys: KeyPath, text: str, allowed: Iterable[Source]) -> Template | None:
        """The template of a text; None when it is none, which has been told then."""
        try:
            template = parse_template(fill_node(text, _SOME_NODE))
        except ValueError as error:
            self._add("E232", keys, str(error), hint=f"known: {KNOWN}; {{{{ and }}}} are braces")
            return None
        for placeholder in placeholders_of(template):
            if placeholder.source not in allowed:
                self._add("E232", keys, f"{placeholder} has no place here", hint=_hint(placeholder))
            elif placeholder.source is Source.ARGUMENT and self._is_beyond(placeholder.number):
                count = f"at most {self._most}" if self._most else "none"
                self._add(
                    "E232",
                    keys,
                    f"{placeholder} is never given: `args` admits {count}",
                    hint="arguments are counted from 0; without `args` there are none",
                )
        return template

    def _is_beyond(self, number: int) -> bool:
        return self._most is not None and number >= self._most

    def _add(
        self, code: str, keys: KeyPath, message: str, *, hint: str = "", on_key: bool = False
    ) -> None:
        self._findings.add(code, (*self._path, *keys), message, hint=hint, on_key=on_key)


def _hint(placeholder: Placeholder) -> str:
    match placeholder.source:
        case Source.DATA:
            return "data goes to `stdin`, `http.body` or `file.content`"
        case Source.REST:
            return "{args.*} is an element of `exec`"
        case _:
            return ""


def _find_element_fault(index: int, template: Template) -> str | None:
    if index == 0 and (not template or placeholders_of(template)):
        return "the program must be written out, without placeholders"
    if len(template) > 1 and Placeholder(Source.REST) in template:
        return "{args.*} stands for several arguments, so it is an element of its own"
    return None


def _find_url_fault(template: Template) -> str | None:
    """Why a URL cannot be used, or could be turned elsewhere by a value."""
    head = template[0] if template and isinstance(template[0], str) else ""
    match = _URL_HEAD.match(head)
    if match is None or int(match["port"] or 1) > 65_535:
        return (
            "not an address: http:// or https://, host, port if need be, all without placeholders"
        )
    rest = head[match.end() :]
    if rest[:1] not in ("/", "?") and (rest or len(template) > 1):
        return (
            "scheme, host and port must be written out and end with a slash; "
            "user and password do not belong there"
        )
    literals = [rest, *(part for part in template[1:] if isinstance(part, str))]
    for literal in literals:
        if _URL_REST.fullmatch(literal) is None or _BAD_ESCAPE.search(literal):
            return "a sign that no address holds as it is; write it as %XX"
    path = "".join([rest, *("x" if not isinstance(part, str) else part for part in template[1:])])
    if any(segment in (".", "..") for segment in _decode_dots(path.partition("?")[0]).split("/")):
        return "`.` and `..` lead elsewhere; write the path out"
    return None


def _decode_dots(path: str) -> str:
    return re.sub("%2e", ".", path, flags=re.IGNORECASE)


def _find_path_fault(template: Template, *, is_name: bool) -> str | None:
    """Why a path cannot be used, whatever the values: each counts as one letter here."""
    literal = "".join(part if isinstance(part, str) else "x" for part in template)
    if literal.startswith("/"):
        return "an absolute path; files of methods lie below the data directory"
    parts = [part for part in literal.split("/") if part not in ("", ".")]
    if not parts:
        return "names no file" if is_name else None
    try:
        check_parts(parts)
    except PathForbidden as error:
        return str(error)
    return None


def check_scheduled_arguments(
    findings: Findings,
    path: KeyPath,
    method: UserMethod,
    texts: tuple[str, ...],
    find_problem: ArgumentCheck,
) -> None:
    """Arguments that a publish entry sends must be such as the method takes."""
    reason = find_problem(method.args, texts)
    if reason is not None:
        findings.add(
            "E236",
            path,
            f"{shorten(method.name)} would refuse this: {reason}",
            hint=f"see `appliance methods {method.name} --config PATH`",
        )
