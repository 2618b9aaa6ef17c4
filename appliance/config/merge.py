"""Files to one tree of plain values, with the place of everything and every problem of reading."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from appliance.config.files import FileSet, read_files
from appliance.config.parse import Trap, parse_file
from appliance.config.positions import KeyPath, Place, SourceMap, make_problem, show_path
from appliance.config.scalars import NumberRefused, resolve_plain, substitute
from appliance.config.secrets import find_secrets, redact
from appliance.core.hidden import NOTHING_HIDDEN, Hidden
from appliance.core.problems import Problem, say_more_places
from appliance.core.settings import Setting, leaves_of, settings_of
from appliance.core.specs import DesiredState, PublisherSpec, Schedule, SubscriberSpec

# Several files to one tree: maps merge by key, the same leaf in two places is an error that names
# both.
#
# `version` is the exception: it tells the format of the file it stands in, so every file may repeat
# it. Null says nothing and gives way to what another file says.


def merge_documents(
    documents: list[tuple[dict[str, Any], SourceMap]],
) -> tuple[dict[str, Any], SourceMap, list[Problem]]:
    """Merge in the order given. The inputs are used up: the first becomes the whole."""
    if not documents:
        return {}, SourceMap(Place("", 0, 0, 0)), []
    problems: list[Problem] = []
    tree, source_map = documents[0]
    for other, other_map in documents[1:]:
        _merge(tree, source_map, other, other_map, (), problems)
    return tree, source_map, problems


def _merge(
    tree: dict[str, Any],
    source_map: SourceMap,
    other: dict[str, Any],
    other_map: SourceMap,
    path: KeyPath,
    problems: list[Problem],
) -> None:
    for key, place in other_map.keys.items():
        child = other_map.children[key]
        if key not in other:  # refused while reading; only its place is kept
            source_map.keys.setdefault(key, place)
            source_map.children.setdefault(key, child)
            continue
        value = other[key]
        if key not in tree or tree[key] is None:
            tree[key] = value
            source_map.keys[key] = place
            source_map.children[key] = child
            continue
        here = tree[key]
        if value is None:
            continue
        if isinstance(here, dict) and isinstance(value, dict):
            _merge(here, source_map.children[key], value, child, (*path, key), problems)
        elif not (path == () and key == "version" and here == value):
            problems.append(
                make_problem(
                    "E011",
                    place,
                    f"`{show_path((*path, key))}` is already set at {source_map.keys[key]}",
                    hint="drop one of the two; maps merge over files, everything else stands once",
                    path=(*path, key),
                )
            )


@dataclass(slots=True, kw_only=True)
class RawConfig:
    """What was read. `files` holds the texts by name;

    `damaged` the paths at which something was refused.
    """

    tree: dict[str, Any]
    source_map: SourceMap
    digest: str
    files: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    traps: list[Trap] = field(default_factory=list)
    damaged: list[KeyPath] = field(default_factory=list)
    blank: frozenset[str] = frozenset()
    """Names of files that hold nothing."""
    unread: frozenset[str] = frozenset()
    """Names of files of which no tree came about."""
    documents: Sequence[tuple[dict[str, Any], SourceMap]] = ()
    """What each file holds, before they were merged."""
    hidden: Hidden = NOTHING_HIDDEN
    """What came from the environment."""
    is_whole: bool = True
    """False when a part is missing altogether: a file unreadable, or broken in its syntax."""

    def shown_files(self, *, keep_columns: bool = False) -> dict[str, str]:
        """The texts as they may be shown: without secrets that somebody wrote into them."""
        secrets = [
            one for tree, source_map in self.documents for one in find_secrets(tree, source_map)
        ]
        return redact(self.files, secrets, self.unread, keep_columns=keep_columns)

    def place_of(self, path: KeyPath, *, on_key: bool = False) -> Place | None:
        """Where `path` stands, or the nearest thing above it."""
        return self.source_map.place_of(path, on_key=on_key)


_PATH_SETTINGS = tuple(
    (*setting.keys, "file") if setting.is_secret else setting.keys
    for setting in leaves_of(DesiredState)
    if setting.is_secret or setting.is_path
)
"""Settings that name a path; relative ones count from the file they stand in."""


def read_config(paths: Sequence[str | os.PathLike[str]], environ: Mapping[str, str]) -> RawConfig:
    """Read, parse, substitute and merge.

    Raises:
        ConfigUnreadable: a path given does not exist or may not be read.
    """
    return compose(read_files(paths), environ)


def compose(found: FileSet, environ: Mapping[str, str]) -> RawConfig:
    """Parse, substitute and merge files that were read, now or long ago."""
    problems = list(found.problems)
    is_whole = not problems
    documents: list[tuple[dict[str, Any], SourceMap]] = []
    traps: list[Trap] = []
    damaged: list[KeyPath] = []
    blank: set[str] = set()
    unread: set[str] = set()
    for name, raw in found.contents.items():
        document = parse_file(name, raw, environ)
        problems += document.problems
        traps += document.traps
        damaged += document.damaged
        is_whole = is_whole and document.is_whole
        if document.tree is not None:
            documents.append((document.tree, document.source_map))
        elif document.problems:
            is_whole = False
            unread.add(name)
        else:
            blank.add(name)
            problems.append(
                make_problem(
                    "W002",
                    Place(name, 1, 1, 1),
                    "the file holds nothing",
                    hint="was it cut off while it was written? else remove it",
                )
            )
    problems += [
        make_problem(
            "W003",
            Place(name, 0, 0, 1),
            "is not read: the names of config files end in .yaml or .yml",
            hint="rename it; where it is to stay unread, let its name begin with a dot",
        )
        for name in found.overlooked
    ]
    problems = _tell_once(problems)
    tree, source_map, merge_problems = merge_documents(documents)
    raw_config = RawConfig(
        tree=tree,
        source_map=source_map,
        digest=found.digest,
        files={name: raw.decode("utf-8", "replace") for name, raw in found.contents.items()},
        problems=problems + merge_problems,
        traps=traps,
        damaged=damaged,
        blank=frozenset(blank),
        unread=frozenset(unread),
        documents=documents,
        is_whole=is_whole,
    )
    # after the merge: a path counts from the file it stands in, which the source map still knows
    _resolve_paths(raw_config)
    if any("${" in text for text in raw_config.files.values()):
        source_maps = [source_map for _, source_map in documents]
        raw_config.hidden = find_hidden(
            source_maps, raw_config.files, raw_config.shown_files, environ
        )
    return raw_config


_ENTRY_SETTINGS = tuple(
    (setting.keys, (*part.keys, "file"))
    for setting in leaves_of(DesiredState)
    if setting.entry is not None
    for part in settings_of(setting.entry)
    if part.is_secret
)
"""Lists whose entries name a path, and where in each."""


def _tell_once(problems: list[Problem]) -> list[Problem]:
    """A variable that is not set is one mistake, told where it stands first, however many places name it."""
    places = Counter(problem.message for problem in problems if problem.code == "E013")
    told: set[str] = set()
    kept = []
    for problem in problems:
        message = problem.message
        if problem.code == "E013" and places[message] > 1:
            if message in told:
                continue
            told.add(message)
            more = say_more_places(places[message])
            problem = replace(problem, message=message + more)
        kept.append(problem)
    return kept


def _entry_paths(tree: dict[str, Any]) -> Iterator[KeyPath]:
    for keys, inner in _ENTRY_SETTINGS:
        found: Any = tree
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        for index in range(len(found) if isinstance(found, list) else 0):
            yield (*keys, index, *inner)


def _header_paths(tree: dict[str, Any]) -> Iterator[KeyPath]:
    """Where secrets of methods may name a file."""
    methods = tree.get("methods")
    for name, method in methods.items() if isinstance(methods, dict) else ():
        http = method.get("http") if isinstance(method, dict) else None
        headers = http.get("headers") if isinstance(http, dict) else None
        for header in headers if isinstance(headers, dict) else ():
            yield ("methods", name, "http", "headers", header, "file")


def _resolve_paths(raw: RawConfig) -> None:
    for path in (*_PATH_SETTINGS, *_header_paths(raw.tree), *_entry_paths(raw.tree)):
        holder: Any = raw.tree
        for part in path[:-1]:
            if isinstance(part, int) and isinstance(holder, list):
                holder = holder[part]
            else:
                holder = holder.get(part) if isinstance(holder, dict) else None
        name = str(path[-1])
        if not isinstance(holder, dict) or not isinstance(holder.get(name), str):
            continue
        source_map = raw.source_map.find(path)
        if source_map is not None and holder[name]:
            base = os.path.dirname(source_map.place.file)
            holder[name] = os.path.abspath(os.path.join(base, holder[name]))


# What came into a config from the environment: values, and how they are written.

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}")


def find_hidden(
    source_maps: Sequence[SourceMap],
    files: Mapping[str, str],
    show: Callable[[], Mapping[str, str]],
    environ: Mapping[str, str],
) -> Hidden:
    """Everything that the environment put into the config.

    Args:
        files: the texts as they are; `show` gives them as they may be shown. What stands in these is no secret.
    """
    names = {name for text in files.values() for name in _REFERENCE.findall(text)}
    texts = {
        environ[name]: f"${{{name}}}" for name in sorted(names) if environ.get(name, "").strip()
    }
    settings: dict[tuple[str, object], str] = {}
    for source_map in source_maps:
        for key, written in _replaced(source_map, ""):
            value = substitute(written, environ).text
            settings.update(dict.fromkeys(_readings(key, value), written))
    shown = "\n".join(show().values()) if texts else ""
    hidden = {text: written for text, written in texts.items() if not _stands_in(text, shown)}
    return Hidden(hidden, settings)


def _stands_in(text: str, shown: str) -> bool:
    return text in shown and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", shown) is not None


def _replaced(source_map: SourceMap, key: str) -> Iterator[tuple[str, str]]:
    """The key and the written text of every scalar in which something was replaced."""
    if source_map.written is not None:
        yield key, source_map.written
    for name, child in source_map.children.items():
        yield from _replaced(child, name if isinstance(name, str) else key)
    for name, _, child in source_map.dropped:
        yield from _replaced(child, name)


def _readings(key: str, text: str) -> Iterator[tuple[str, object]]:
    """Name and value of the settings that the text may have become."""
    yield key, text
    try:
        value = resolve_plain(text) if text else None
    except NumberRefused:
        return
    if value is None:
        return
    if not isinstance(value, str):
        yield key, value
    for setting in _settings_by_key().get(key, ()):
        try:
            read = setting.read(value)
        except (ValueError, TypeError):
            continue
        if isinstance(read, str | int | float):
            yield setting.attr, read


@cache
def _settings_by_key() -> dict[str, list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for spec in (DesiredState, PublisherSpec, SubscriberSpec, Schedule):
        for setting in leaves_of(spec):
            found.setdefault(setting.keys[-1], []).append(setting)
    return found
