"""What becomes of a program's end: the output as the reply carries it, and a report where something is amiss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from appliance.core.escape import escape_controls
from appliance.core.message import Message, bytes_to_text
from appliance.methods.programs.command import CommandResult
from appliance.methods.texts import shorten

REPORTED_STDERR_BYTES = 8_192
"""How much of stderr an error report carries."""


def show_command(arguments: Sequence[str]) -> str:
    """A command for a text: unambiguous, short and harmless."""
    return shorten(json.dumps(list(arguments), ensure_ascii=False))


def output_of(result: CommandResult, timeout_s: float) -> bytes:
    """Standard output, with a last line where the program was stopped."""
    if not result.timed_out:
        return result.stdout
    ends_line = result.stdout.endswith(b"\n") if result.stdout else result.ends_line
    gap = b"" if ends_line else b"\n"
    return result.stdout + gap + f"[stopped after {timeout_s:g} s]\n".encode()


def report_of(
    arguments: Sequence[str], message: Message, timeout_s: float, result: CommandResult
) -> str | None:
    """What the sender should know besides stdout; None if there is nothing."""
    if result.start_error is not None:
        what = f"could not be started: {result.start_error}"
    elif result.timed_out:
        what = f"was stopped after {timeout_s:g} s"
    elif result.exit_status or result.stderr:
        what = f"ended with exit status {result.exit_status}"
    else:
        return None
    sender = shorten(message.from_node)
    text = f"command {show_command(arguments)} from {sender}, message {message.id}, {what}"
    if not result.stderr or result.start_error is not None:
        return text
    stderr = result.stderr[:REPORTED_STDERR_BYTES]
    mark = f"\n[cut at {REPORTED_STDERR_BYTES} bytes]" if len(result.stderr) > len(stderr) else ""
    return f"{text}, stderr: {escape_controls(bytes_to_text(stderr)).rstrip()}{mark}"


def report_of_stream(
    arguments: Sequence[str], message: Message, timeout_s: float, result: CommandResult
) -> str | None:
    """As `report_of`, for a program whose streams were passed on: their words alone are no news."""
    if result.start_error is None and not result.timed_out and not result.exit_status:
        return None
    stderr = result.stderr_tail if result.start_error is None else result.stderr
    return report_of(arguments, message, timeout_s, replace(result, stderr=stderr))
