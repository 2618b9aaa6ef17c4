"""What the command line tells of itself: its commands, their options, and what these take."""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterator
from typing import Any

WORDS = {"integer": "NUMBER", "int": "NUMBER", "float": "NUMBER", "path": "PATH"}
"""What stands for a value, by the name of its type."""


def all_commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every visible command by its words, groups included."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield prefix + name, command
        if hasattr(command, "commands"):
            yield from all_commands(command, f"{prefix}{name} ")


def options_of(command: Any) -> list[Any]:
    """Visible options, in the order of `--help`."""
    found = [item for item in command.params if item.param_type_name == "option"]
    return [item for item in found if not item.hidden]


def arguments_of(command: Any) -> list[Any]:
    """Positional arguments."""
    return [item for item in command.params if item.param_type_name == "argument"]


def flags(option: Any) -> list[str]:
    """All spellings, the long ones last."""
    return sorted([*option.opts, *option.secondary_opts], key=lambda text: text.startswith("--"))


def choices(option: Any) -> list[str]:
    """The values that an option takes, where they are few."""
    if hasattr(option, "type"):
        return [str(item) for item in getattr(option.type, "choices", ())]
    kind = _annotation(option)
    return [str(item.value) for item in kind] if issubclass(kind, enum.Enum) else []


def _annotation(option: Any) -> type:
    """The type of one value, as typer holds it from 0.29 on: a clone's environment may have that."""
    kind = option.type_descriptor.annotation
    kind = next(iter(typing.get_args(kind)), kind)
    return kind if isinstance(kind, type) else str


def _word(option: Any) -> str:
    kind = option.type.name if hasattr(option, "type") else _annotation(option).__name__.lower()
    return WORDS.get(kind.removesuffix(" range"), "TEXT")


def takes_value(option: Any) -> bool:
    """Whether a word follows."""
    return not (option.is_flag or option.count)


def metavar(option: Any) -> str:
    """What stands for the value."""
    return option.metavar or ("|".join(choices(option)) or _word(option))


def summary(command: Any) -> str:
    """The first sentence of the help."""
    text = " ".join((command.help or command.short_help or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")
