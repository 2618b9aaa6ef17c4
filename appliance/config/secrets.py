"""Secrets that were written into a config, found by what they are: they leave in no excerpt and no difference.

A secret is what stands where the settings want one, or below a key that is called like one. Well-formed references
(``{file: …}``) are none: they are how it should be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from appliance.config.compiler.methods import SECRET_HEADERS
from appliance.config.positions import KeyPath, Place, SourceMap
from appliance.core.escape import escape_line
from appliance.core.problems import Problem
from appliance.core.settings import leaves_of, settings_of
from appliance.core.specs import DesiredState

BLOT = "********"
MIN_ELSEWHERE_CHARACTERS = 6
"""A secret of at least this many is looked for in the rest of the files, too."""

_WORDS = r"pas{1,2}w|pass(?:wd|phrase)?|secret|token|seed|credential|nkey|api_?-?key|bearer|private"
_KEY = re.compile(_WORDS, re.IGNORECASE)
_REFERENCE_KEYS = frozenset({"file", "env", "credential"})
_REFERENCE_NAME = re.compile(r"[\w./~-]+|\$\{[^{}]*\}")
_PATHS = tuple(setting.keys for setting in leaves_of(DesiredState) if setting.is_secret)
_SECTIONS = {path[:-1] for path in _PATHS}
_KNOWN = {setting.keys for setting in leaves_of(DesiredState)}
_ENTRIES: dict[KeyPath, frozenset[str]] = {
    setting.keys: frozenset(
        part.keys[-1] for part in settings_of(setting.entry) if not part.is_secret
    )
    for setting in leaves_of(DesiredState)
    if setting.entry is not None and any(part.is_secret for part in settings_of(setting.entry))
}
"""Lists of maps in which secrets stand, and what in these is none."""
_HEADERS = ("http", "headers")
_NAME = re.compile(r"(?<![\w-])(?P<name>[\w-]++)[\"']?\s*+[:=]\s*+")
_REFERENCE = re.compile(
    r"\{\s*(?:file|env|credential)\s*:\s*[\"']?[\w./~-]+[\"']?\s*\}", re.IGNORECASE
)
_VALUE = re.compile(r"\S.*")
"""In a line that could not be read as YAML: what may name a secret, and what follows it. Each is looked for from where the
last one ended and gives nothing back, so that a text costs what it is long."""
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
_URL_USER = re.compile(r"(?<=://)[^@/\s\"']+(?=@)")


class Secret(NamedTuple):
    """A value that nobody may see, and where it stands."""

    place: Place
    text: str


def find_secrets(tree: Mapping[str, Any], source_map: SourceMap) -> list[Secret]:
    """Every secret of a file that was read."""
    return list(_walk(tree, source_map, (), is_below=False))


def _walk(value: Any, source_map: SourceMap, path: KeyPath, *, is_below: bool) -> Iterator[Secret]:
    if isinstance(value, dict):
        is_reference = is_below and value.keys() <= _REFERENCE_KEYS
        for key, there in source_map.children.items():
            here = (*path, key)
            is_secret = is_below or _is_secret(here)
            child = value.get(key)
            if here in _ENTRIES and isinstance(child, list):
                is_secret = False  # it is what stands in its maps
            if is_reference and isinstance(child, str) and _REFERENCE_NAME.fullmatch(child):
                continue
            if is_secret and key not in value:
                yield Secret(there.place, "")  # refused while it was read: an alias, a tag
            yield from _walk(child, there, here, is_below=is_secret)
        for key, child, there in source_map.dropped:
            here = (*path, key)
            yield from _walk(child, there, here, is_below=is_below or _is_secret(here))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found = source_map.children.get(index)
            if found is not None:
                is_stray = path in _ENTRIES and not isinstance(child, dict)
                yield from _walk(child, found, (*path, index), is_below=is_below or is_stray)
    elif is_below and value is not None and not isinstance(value, bool):
        yield Secret(source_map.place, str(value))


def _is_secret(path: KeyPath) -> bool:
    key = str(path[-1])
    if path[0] == "methods" and path[2:4] == _HEADERS:
        return len(path) > 4 and (key.lower() in SECRET_HEADERS or bool(_KEY.search(key)))
    if path[0] == "nodes" and len(path) == 2:
        return False  # a node may be called anything
    if path[:-2] in _ENTRIES:
        return key not in _ENTRIES[path[:-2]]
    if path[:-1] in _SECTIONS and path not in _KNOWN and not _is_section(path):
        return True  # misspelt, where a secret may have been meant
    return path in _PATHS or _KEY.search(key) is not None


def _is_section(path: KeyPath) -> bool:
    return any(known[: len(path)] == path for known in _KNOWN)


def redact(
    files: Mapping[str, str],
    secrets: Sequence[Secret],
    unread: Set[str],
    *,
    keep_columns: bool = False,
) -> dict[str, str]:
    """The texts without the secrets.

    Args:
        unread: names of files that are no YAML: there what looks like a secret counts as one.
        keep_columns: blot out as many characters as there were, so that places in the texts stay right.
    """
    by_file: dict[str, list[Secret]] = {}
    for secret in secrets:
        by_file.setdefault(secret.place.file, []).append(secret)
    known = sorted(
        {one.text for one in secrets if len(one.text) >= MIN_ELSEWHERE_CHARACTERS},
        key=len,
        reverse=True,
    )
    return {
        name: redact_unread(text)
        if name in unread
        else _redact_text(text, by_file.get(name, []), known, keep_columns=keep_columns)
        for name, text in files.items()
    }


def _redact_text(text: str, secrets: list[Secret], known: list[str], *, keep_columns: bool) -> str:
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    lines = text.removeprefix("\ufeff").split("\n")
    for secret in sorted(secrets, key=lambda one: one.place.column, reverse=True):
        _, number, column, length = secret.place
        pieces = [piece for piece in secret.text.splitlines() if piece.strip()]
        if len(pieces) > 1 or length < len(secret.text):
            for index in range(number - 1, len(lines)):  # it goes on over several lines
                for piece in pieces:
                    for word in (piece.strip(), *piece.split()):
                        if len(word) >= MIN_ELSEWHERE_CHARACTERS:
                            lines[index] = lines[index].replace(word, BLOT)
            continue
        line, start = lines[number - 1], column - 1
        blot = "*" * length if keep_columns else BLOT
        lines[number - 1] = line[:start] + blot + line[start + length :]
    redacted = "\n".join(
        _COMMENT.sub(lambda comment: redact_unread(comment[0]), line) for line in lines
    )
    for word in known:
        redacted = redacted.replace(word, "*" * len(word) if keep_columns else BLOT)
    redacted = _URL_USER.sub(lambda match: "*" * len(match[0]), redacted)
    return mark + redacted


def redact_unread(text: str) -> str:
    """The same for a text of which no tree came about."""
    pieces, shown = [], 0
    while (named := _NAME.search(text, shown)) is not None:
        value = None
        if _KEY.search(named["name"]) and not _REFERENCE.match(text, named.end()):
            value = _VALUE.match(text, named.end())
        pieces += [text[shown : named.end()], BLOT if value else ""]
        shown = value.end() if value else named.end()
    hidden = "".join((*pieces, text[shown:]))
    return _URL_USER.sub(lambda match: "*" * len(match[0]), hidden)


# The source line beside a problem.

MAX_EXCERPT = 2_000
"""A line that is longer holds something else than a config; the command line crops further."""


def add_excerpts(problems: Sequence[Problem], files: Mapping[str, str]) -> list[Problem]:
    """Give each problem the line it points at; the files are those that may be shown (`secrets`)."""
    lines: dict[str, list[str]] = {}
    shown = []
    for problem in problems:
        if problem.line < 1 or problem.file not in files:
            shown.append(problem)
            continue
        if problem.file not in lines:
            # NB: not splitlines(): YAML and editors do not count form feeds and the like as line
            # ends.
            lines[problem.file] = re.split(
                r"\r\n|\r|\n", files[problem.file].removeprefix("\ufeff")
            )
        all_lines = lines[problem.file]
        line = all_lines[problem.line - 1] if problem.line <= len(all_lines) else ""
        shown.append(replace(problem, excerpt=_make_excerpt(problem, line)))
    return shown


def _make_excerpt(problem: Problem, line: str) -> str:
    if problem.code == "E109":
        start = problem.column - 1
        # A key is harmless and helps; what follows it is not shown.
        end = start + problem.length
        is_key = re.match(r"\s*:", line[end:]) is not None
        line = line[: end if is_key else start] + (": " if is_key else "") + BLOT
    # NB: cut first: a line of ten thousand mistakes is shown ten thousand times
    return escape_line(line[:MAX_EXCERPT].replace("\t", " "))[:MAX_EXCERPT].rstrip()
