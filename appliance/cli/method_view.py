"""How to call a method, in words. Pure: facts of the API in, text out."""

from __future__ import annotations

from typing import Any

from appliance.core.durations import format_duration
from appliance.core.escape import escape_line

Json = dict[str, Any]

_DOES = {
    "exec": "runs a program; the answer is its output",
    "http": "makes an HTTP request; the answer is the body of what came back",
    "file": "writes a file below the data directory",
}
_INDENT = "  "


def render_list(methods: list[Json]) -> str:
    """One line per method, those of the config first."""
    rows = [
        (_call_of(method), str(method.get("kind") or ""), str(method.get("summary") or ""))
        for method in methods
    ]
    width = min(44, max((len(row[0]) for row in rows), default=0))
    lines: list[str] = []
    source = None
    for method, (call, kind, summary) in zip(methods, rows, strict=True):
        if method.get("source") != source:
            source = method.get("source")
            lines += [*([""] if lines else []), _SOURCES.get(str(source), str(source))]
        lines.append(escape_line(f"{_INDENT}{call:{width}s}  {kind:7s}  {summary}").rstrip())
    return "\n".join(lines)


_SOURCES = {"config": "of the config:", "builtin": "of the program:"}


def render_method(method: Json) -> str:
    """What a method does and takes: the help text of one that somebody else declared."""
    name = str(method.get("name") or "")
    origin = "declared in the config" if method.get("source") == "config" else "of the program"
    title = f"{name}: {method['summary']}" if method.get("summary") else name
    lines = [title, "", *render_usage(method), "", _say_kind(str(method.get("kind")), origin)]
    does = _DOES.get(str(method.get("does")))
    if does:
        lines.append(does)
    timeout_s = method.get("timeout_seconds")
    if timeout_s:
        lines.append(
            f"stopped after {format_duration(float(timeout_s))} unless a message says more"
        )
    return "\n".join(escape_line(line) for line in lines)


def _say_kind(kind: str, origin: str) -> str:
    article = "an" if kind.startswith("e") else "a"
    return f"{article} {kind}, {origin}"


def render_usage(method: Json) -> list[str]:
    """The usage line, and a line or two for each argument."""
    usage = str(method.get("usage") or "")
    call = f"usage: appliance send --to NODE {method.get('name')}"
    gap = " " if method.get("args") is not None else " -- "
    lines = [f"{call}{gap}{usage}" if usage else call]
    arguments: list[Json] = method.get("args") or []
    if method.get("args") == []:
        lines.append(f"{_INDENT}takes no arguments")
    width = max((len(_name_of(argument)) for argument in arguments), default=0)
    for argument in arguments:
        lines.append(f"{_INDENT}{_name_of(argument):{width}s}  {_describe(argument)}")
        description = argument.get("description")
        if description:
            lines.append(f"{_INDENT}{'':{width}s}  {description}")
    return [escape_line(line) for line in lines]


def _call_of(method: Json) -> str:
    usage = str(method.get("usage") or "")
    return f"{method.get('name')} {usage}".strip()


def _name_of(argument: Json) -> str:
    return str(argument.get("name") or "").replace(" ", "-").upper()


def _describe(argument: Json) -> str:
    parts = [_values_of(argument)]
    if not argument.get("required"):
        parts.append("may be left out")
    if argument.get("repeats"):
        most = argument.get("most")
        parts.append(f"up to {most} of them" if most else "any number of them")
    return ", ".join(parts)


def _values_of(argument: Json) -> str:
    choices = argument.get("choices")
    if choices:
        shown = " | ".join(_say(choice) for choice in choices[:20])
        return shown if len(choices) <= 20 else f"{shown} | …"
    words = str(argument.get("type") or "text")
    least, most = argument.get("minimum"), argument.get("maximum")
    if least is not None and most is not None:
        words += f" from {least} to {most}"
    elif least is not None:
        words += f", at least {least}"
    elif most is not None:
        words += f", at most {most}"
    if argument.get("pattern"):
        words += f" like {argument['pattern']}"
    length = argument.get("length")
    if length:
        shortest, longest = length
        words += f" of {shortest} to {longest} characters" if longest else f" of {shortest} or more"
    return words


def _say(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
