"""Changes of a config that a command writes for somebody to commit: a key beside or out of a node, a node that is new.

The text is changed at one place and stays as it is at every other, comments and all: a patch that is read must show what
changes and nothing else. What comes out is read again, and must say what the old text said with that one change.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from typing import Any, NamedTuple

import yaml

from appliance.config.scalars import resolve_plain
from appliance.core.public_keys import PUBLIC_KEYS

_MAX_INDENT = 20


class EditImpossible(Exception):
    """The text does not let the change be made at one place; the words say what to write by hand."""


class Edit(NamedTuple):
    """A file with its old text ("" where it is new) and its new one."""

    name: str
    old: str
    new: str

    def patch(self) -> str:
        """As `git apply` takes it."""
        old_name = f"a/{self.name}" if self.old else "/dev/null"
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in unified_diff(
                self.old.splitlines(keepends=True),
                self.new.splitlines(keepends=True),
                old_name,
                f"b/{self.name}",
            )
        )


def add_key(
    files: Mapping[str, str], node: str, key: str, *, roles: Sequence[str] = (), into: str = ""
) -> Edit:
    """Declare a key of a node, beside those it has, and the node where it is not declared.

    Args:
        files: the texts of the config by name.
        roles: of a node that is new.
        into: the file in which a new node is written, which need not be there; the last that declares nodes where "".

    Raises:
        EditImpossible: the change is to be made by hand.
    """
    trees = {name: _Tree(text) for name, text in files.items()}
    # where its keys are, for a node may stand in several files; else where it is declared first
    for keys in (("nodes", node, PUBLIC_KEYS), ("nodes", node)):
        for name, tree in trees.items():
            if tree.find(*keys) is not None:
                found = tree.find("nodes", node)
                assert found is not None
                new = _with_key(tree, found, key)
                return _checked(name, tree.text, new, node, key, is_added=True)
    return _declare(files, node, key, roles, into)


def remove_key(files: Mapping[str, str], node: str, key: str) -> Edit:
    """Take a key of a node out. Raises EditImpossible."""
    for name, text in files.items():
        tree = _Tree(text)
        listed = tree.find("nodes", node, PUBLIC_KEYS)
        if listed is None or not isinstance(listed, yaml.SequenceNode):
            continue
        for index, item in enumerate(listed.value):
            if item.value == key:
                new = _without_item(tree, listed, index)
                return _checked(name, text, new, node, key, is_added=False)
    raise EditImpossible(f"{node} has no such key in these files")


class _Tree:
    """A text and where things stand in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise EditImpossible(f"the file is no YAML: {error}") from None
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self.newline = "\r\n" if "\r\n" in text else "\n"

    def find(self, *keys: str) -> yaml.Node | None:
        """The node at some keys."""
        node = self.root
        for key in keys:
            if not isinstance(node, yaml.MappingNode):
                return None
            node = next((value for name, value in node.value if name.value == key), None)
        return node

    def insert(self, at: int, text: str) -> str:
        """The text with more in it."""
        return self.text[:at] + text + self.text[at:]

    def line_start(self, line: int) -> int:
        """Where a line begins; the end of the text for one behind the last."""
        return self._starts[min(line, len(self._starts) - 1)]

    def insert_line(self, line: int, text: str) -> str:
        """The text with a line of its own before a line."""
        at = self.line_start(line)
        begin = "" if at == 0 or self.text[at - 1] == "\n" else self.newline
        return self.insert(at, f"{begin}{text}{self.newline}")

    def end_line(self, node: yaml.Node) -> int:
        """The line behind the last one of a block: comments and empty lines behind it belong to what follows."""
        line: int = node.end_mark.line + (1 if node.end_mark.column else 0)
        lines = self.text.splitlines()
        while line > node.start_mark.line + 1:
            above = lines[line - 1].strip() if line <= len(lines) else ""
            if above and not above.startswith("#"):
                break
            line -= 1
        return line


def _with_key(tree: _Tree, node: yaml.Node, key: str) -> str:
    if not isinstance(node, yaml.MappingNode):
        # a node without anything: `ship1:`, or `ship1: ~`
        content = f"{{{PUBLIC_KEYS}: [{key}]}}"
        begin, end = node.start_mark.index, node.end_mark.index
        is_bare = begin == end
        return tree.text[:begin] + (f" {content}" if is_bare else content) + tree.text[end:]
    listed = next((value for name, value in node.value if name.value == PUBLIC_KEYS), None)
    if isinstance(listed, yaml.SequenceNode):
        return _with_item(tree, listed, key)
    if listed is not None:
        raise EditImpossible(
            f"write `{PUBLIC_KEYS}: [{key}]` below the node: what stands there is no list"
        )
    if node.flow_style:
        rest = ", " if node.value else ""
        return tree.insert(node.start_mark.index + 1, f"{PUBLIC_KEYS}: [{key}]{rest}")
    first = node.value[0][0].start_mark
    if first.column > _MAX_INDENT:
        raise EditImpossible(f"write `{PUBLIC_KEYS}: [{key}]` below the node")
    return tree.insert_line(first.line, f"{' ' * first.column}{PUBLIC_KEYS}: [{key}]")


def _with_item(tree: _Tree, listed: yaml.SequenceNode, key: str) -> str:
    if not listed.value:
        return tree.insert(listed.start_mark.index + 1, key)
    last = listed.value[-1]
    if listed.flow_style:
        return tree.insert(last.end_mark.index, f", {key}")
    dash = tree.text.rindex("-", 0, last.start_mark.index)
    indent = dash - tree.line_start(last.start_mark.line)
    return tree.insert_line(last.end_mark.line + 1, f"{' ' * indent}- {key}")


def _without_item(tree: _Tree, listed: yaml.SequenceNode, index: int) -> str:
    item = listed.value[index]
    if not listed.flow_style:
        if len(listed.value) == 1:
            raise EditImpossible("it is the only key of the node: take `public_keys` out by hand")
        begin = tree.line_start(item.start_mark.line)
        return tree.text[:begin] + tree.text[tree.line_start(item.end_mark.line + 1) :]
    if index + 1 < len(listed.value):
        begin, end = item.start_mark.index, listed.value[index + 1].start_mark.index
    elif index:
        begin, end = listed.value[index - 1].end_mark.index, item.end_mark.index
    else:
        begin, end = item.start_mark.index, item.end_mark.index
    return tree.text[:begin] + tree.text[end:]


def _declare(
    files: Mapping[str, str], node: str, key: str, roles: Sequence[str], into: str
) -> Edit:
    facts = [f"roles: [{', '.join(roles)}]"] if roles else []
    # a name that reads as something else than text, to any reader of YAML, stands in quotes
    named = node if _is_plain(node) else f'"{node}"'
    line = f"{named}: {{{', '.join([*facts, f'{PUBLIC_KEYS}: [{key}]'])}}}"
    if into and into not in files:
        return Edit(into, "", f"version: 1\n\nnodes:\n  {line}\n")
    names = [into] if into else list(reversed(list(files)))
    for name in names:
        text = files[name]
        tree = _Tree(text)
        nodes = tree.find("nodes")
        if isinstance(nodes, yaml.MappingNode):
            new = _with_node(tree, nodes, line)
            return _checked(name, text, new, node, key, is_added=True)
    if into:
        text = files[into]
        end = "" if text.endswith("\n") or not text else "\n"
        new = f"{text}{end}\nnodes:\n  {line}\n"
        return _checked(into, text, new, node, key, is_added=True)
    raise EditImpossible(
        f"no file declares nodes: name one with --into, or write below `nodes:`  {line}"
    )


def _with_node(tree: _Tree, nodes: yaml.MappingNode, line: str) -> str:
    if nodes.flow_style:
        if not nodes.value:
            return tree.insert(nodes.start_mark.index + 1, line)
        return tree.insert(nodes.value[-1][1].end_mark.index, f", {line}")
    indent = nodes.value[0][0].start_mark.column
    return tree.insert_line(tree.end_line(nodes), f"{' ' * indent}{line}")


def _checked(name: str, old: str, new: str, node: str, key: str, *, is_added: bool) -> Edit:
    """The edit, where the new text says what the old one did with this one change."""
    before, after = _load(old), _load(new)
    expected = copy.deepcopy(before)
    nodes = _child(expected, "nodes")
    own = _child(nodes, node)
    keys = list(own.get(PUBLIC_KEYS) or ())
    own[PUBLIC_KEYS] = [*keys, key] if is_added else [one for one in keys if one != key]
    if isinstance(after, dict) and node not in _as_map(_as_map(before).get("nodes")):
        # what else a new node is said to be is what was asked for
        made = _as_map(_as_map(after.get("nodes")).get(node))
        nodes[node] = {**made, PUBLIC_KEYS: own[PUBLIC_KEYS]}
    if after != expected:
        verb = "add" if is_added else "take out"
        raise EditImpossible(f"{verb} {key} below nodes.{node}.{PUBLIC_KEYS} in {name} by hand")
    return Edit(name, old, new)


def _load(text: str) -> Any:
    try:
        # every scalar as its text: `yes` must not become equal to `true`
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return None


def _child(tree: Any, key: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {}
    found = tree.get(key)
    if not isinstance(found, dict):
        found = tree[key] = {}
    return found


def _as_map(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {}


def _is_plain(name: str) -> bool:
    try:
        return isinstance(yaml.safe_load(name), str) and resolve_plain(name) == name
    except (yaml.YAMLError, ValueError):
        return False
