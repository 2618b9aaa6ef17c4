"""What a command is given beside its arguments: standard input, a user, a directory, variables. Pure.

They stand before the program in methodArgs: an empty text, which no program's name is, then JSON. Whoever does not know
that refuses the message instead of running the command without them: an appliance of an earlier version as it names no
program, a Go node as it finds none of that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from appliance.errors import ArgumentsInvalid

MAX_STDIN_BYTES = 524_288
"""It travels with the command, in one message."""
MAX_VARIABLES = 64
MAX_OPTIONS_CHARACTERS = 262_144
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYS = frozenset({"stdin", "user", "cwd", "env"})
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class CommandOptions(NamedTuple):
    """`has_stdin` tells that the message's data is what the program reads. Empty is as without it."""

    has_stdin: bool = False
    user: str = ""
    directory: str = ""
    variables: Mapping[str, str] = _NO_VARIABLES


NO_OPTIONS = CommandOptions()


def join_options(options: CommandOptions, program: Sequence[str]) -> list[str]:
    """The arguments of a message that has `program` run with these."""
    if options == NO_OPTIONS:
        return list(program)
    said: dict[str, object] = {}
    if options.has_stdin:
        said["stdin"] = True
    if options.user:
        said["user"] = options.user
    if options.directory:
        said["cwd"] = options.directory
    if options.variables:
        said["env"] = dict(options.variables)
    return ["", json.dumps(said), *program]


def split_options(arguments: Sequence[str]) -> tuple[CommandOptions, tuple[str, ...]]:
    """The options, and the program with its arguments.

    Raises:
        ArgumentsInvalid: there is no program, or the options are none that are known here.
    """
    if not arguments or (not arguments[0] and (len(arguments) < 3 or not arguments[2])):
        raise ArgumentsInvalid("methodArgs must hold a program and its arguments")
    if arguments[0]:
        return NO_OPTIONS, tuple(arguments)
    return _read(arguments[1]), tuple(arguments[2:])


def has_options(arguments: Sequence[object]) -> bool:
    """Whether options stand before the program: no node but an appliance runs it then."""
    return bool(arguments) and arguments[0] == ""


def show_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of any message, in the words of `exec` where options stand before a program; no variable's value."""
    if not arguments or arguments[0]:
        return list(arguments)
    try:
        options, program = split_options(arguments)
    except ArgumentsInvalid:
        return list(arguments)
    said = ["-i"] if options.has_stdin else []
    said += ["--user", options.user] if options.user else []
    said += ["--cwd", options.directory] if options.directory else []
    for name in options.variables:
        said += ["--env", f"{name}=…"]
    return [*said, "--", *program]


def _read(text: str) -> CommandOptions:
    try:
        found = json.loads(text) if len(text) <= MAX_OPTIONS_CHARACTERS else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ArgumentsInvalid("what stands before the program is no JSON object of its options")
    unknown = sorted(found.keys() - _KEYS)
    if unknown:
        # never run without what was asked for
        raise ArgumentsInvalid(f"this version knows no option {unknown[0][:40]!r} of a command")
    has_stdin, user, directory = (
        found.get("stdin", False),
        found.get("user", ""),
        found.get("cwd", ""),
    )
    if (
        not isinstance(has_stdin, bool)
        or not isinstance(user, str)
        or not isinstance(directory, str)
    ):
        raise ArgumentsInvalid("an option of the command is of another type than it should be")
    if "\0" in user or "\0" in directory:
        raise ArgumentsInvalid("an option of the command holds a NUL")
    if directory and not directory.startswith("/"):
        raise ArgumentsInvalid("the directory of the command is no absolute path")
    return CommandOptions(has_stdin, user, directory, _read_variables(found.get("env", {})))


def _read_variables(found: object) -> Mapping[str, str]:
    if not isinstance(found, dict) or len(found) > MAX_VARIABLES:
        raise ArgumentsInvalid(
            f"the variables of the command are no map of at most {MAX_VARIABLES}"
        )
    for name, value in found.items():
        if not VARIABLE.fullmatch(name):
            raise ArgumentsInvalid(f"{name[:60]!r} is no variable's name")
        if not isinstance(value, str) or "\0" in value:
            raise ArgumentsInvalid(f"the value of the variable {name[:60]} is no text without NUL")
    return found
