"""What many nodes said, those that said the same together. Pure: answers in, blocks of bytes out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from appliance.cli.answer_view import Chunk, NodeAnswer, Said, Stream
from appliance.core.escape import escape_controls, escape_line
from appliance.core.targets import natural_key

WIDTH = 80


@dataclass(slots=True)
class Group:
    """Nodes with one outcome: the same words, exit status, output and error output."""

    outcome: str
    said: Said
    first: NodeAnswer
    nodes: list[str] = field(default_factory=list)


def make_groups(answers: Iterable[tuple[NodeAnswer, Said]]) -> list[Group]:
    """In the order that a reader wants: what went well, what failed, who is silent, who was not asked."""
    found: dict[tuple[object, ...], Group] = {}
    for item, said in sorted(answers, key=lambda pair: natural_key(pair[0].node)):
        outcome = describe_outcome(item)
        key = (_rank(item), outcome, item.progress.exit_status, said)
        found.setdefault(key, Group(outcome, said, item)).nodes.append(item.node)
    return sorted(found.values(), key=lambda group: _rank(group.first))


def _rank(item: NodeAnswer) -> int:
    if item.is_not_asked:
        return 3
    if item.has_failed:
        return 1
    return 2 if item.is_silent else 0


def describe_outcome(item: NodeAnswer) -> str:
    """Words for how it went; "" where all is well."""
    words = []
    if item.has_failed or item.is_silent or item.is_not_asked:
        words.append(item.describe())
    elif not item.progress.wants_answer:
        words.append(item.word)
    ending = item.progress.describe_ending()
    if ending is not None:
        words.append(ending)
    if item.progress.exit_status and (item.progress.is_truncated or item.progress.is_cut):
        words.append("the output is not complete")
    if item.progress.not_filed:
        words.append(f"its answer is not filed here: {item.progress.not_filed}")
    if item.is_shown_in_part:
        words.append("cut here; the whole is in the reply's file")
    if item.progress.is_stderr_cut:
        words.append("of its error output only the end came")
    return ", ".join(words)


def show_groups(groups: Sequence[Group], escapes: Set[Stream], width: int = WIDTH) -> list[Chunk]:
    """Blocks for stdout, an empty line between them."""
    blocks = [b"".join(_show(group, Stream.OUT in escapes, width)) for group in groups]
    return [Chunk(Stream.OUT, b"\n".join(blocks))] if blocks else []


def _show(group: Group, escapes: bool, width: int) -> Iterator[bytes]:
    facts = [f"{len(group.nodes)} nodes"] if len(group.nodes) > 1 else []
    facts += [group.outcome] if group.outcome else []
    tail = f" ({', '.join(facts)}):" if facts else ":"
    yield f"{wrap_names(group.nodes, tail=tail, width=width)}\n".encode()
    yield from _lines(b"    ", group.said.out, escapes)
    yield from _lines(b"  ! ", group.said.err, escapes)
    if (
        not (group.said.out or group.said.err)
        and not group.outcome
        and group.first.progress.is_answered
    ):
        yield b"    (answered, empty)\n"


def _lines(margin: bytes, data: bytes, escapes: bool) -> Iterator[bytes]:
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        shown = (
            escape_controls(line.decode("utf-8", "surrogateescape")).encode() if escapes else line
        )
        yield (margin + shown if shown else b"") + b"\n"


def wrap_names(names: Sequence[str], *, begin: str = "", tail: str = "", width: int = WIDTH) -> str:
    """Names with commas between words before and behind them, in lines that fit."""
    return textwrap.fill(
        # the words behind them are of other nodes, too
        escape_line(", ".join(names) + tail),
        width,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )


def describe_groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [
        {
            "nodes": group.nodes,
            "state": group.first.word,
            "exit_status": group.first.progress.exit_status,
            "reason": group.outcome or None,
            "stdout": group.said.show(Stream.OUT),
            "stderr": group.said.show(Stream.ERR),
        }
        for group in groups
    ]
