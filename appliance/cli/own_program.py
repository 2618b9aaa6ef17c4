"""How this very program is started again: by what it was started with, which knows its interpreter and its parts."""

from __future__ import annotations

import os
import sys

from appliance.cli.options import PROGRAM


def find_own_command(argv0: str | None = None) -> list[str]:
    """The words before the arguments.

    The command of the package is a program of its own that sees to certificates and the broker's package; only where
    there is none (`python -m appliance`) is the interpreter asked for the module.
    """
    started_as = sys.argv[0] if argv0 is None else argv0
    path = os.path.abspath(started_as)
    is_program = os.path.isfile(path) and os.access(path, os.X_OK)
    if is_program and os.path.basename(path) == PROGRAM:
        return [path]
    return [sys.executable, *_isolation(), "-m", "appliance"]


def _isolation() -> list[str]:
    """An interpreter that takes no module from directory or environment starts another of that kind."""
    return ["-I"] if sys.flags.isolated else []
