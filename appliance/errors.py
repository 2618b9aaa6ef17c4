"""The exception tree. Expected outcomes are values elsewhere; these are for what a caller cannot plan for.

ApplianceError
|- ConfigError            ConfigUnreadable, ConfigInvalid(problems), RunNodesUnclear(nodes),
|                         MethodUnusable
|- WireError              EncodeError, DecodeError
|- BusError               BusUnavailable, BusUnauthorized, SubjectInvalid, PayloadTooLarge, StreamRefused
|- StoreError             StoreFull, StoreUnusable, StoreLocked
|- HandlerError           PathForbidden, CommandForbidden, ArgumentsInvalid, FileFailed, CopyFailed,
|                         FetchFailed (UrlForbidden)
|- RequestInvalid         something a caller of the API sent us; ArgumentsRefused, TargetsUnclear
|- DaemonError            DaemonUnreachable, DaemonAlreadyRunning, StateDirForeign
|- OutputLost             standard output took no more
|- BenchError             BenchDenied, BenchUnsuited, BenchFailed, BenchInterrupted(number)

Classes carry fields; the text is built in the class, once: lower case, no full stop, value and limit included.
Foreign exceptions are mapped in the one file that may import their library, with ``raise ... from``.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.core.problems import Problem


def say_os_error(error: OSError) -> str:
    """The system's words; where nothing may be written, also what opens the cage that the packages' unit is."""
    words = (error.strerror or str(error)).lower()
    if error.errno == errno.EROFS:
        return f"{words} (the packages' service: `appliance setup allow --write` opens its cage)"
    return words


class ApplianceError(Exception):
    """Root of every error of ours. `retryable` answers the only question callers ask."""

    retryable = False


class ConfigError(ApplianceError):
    """The configuration cannot be used."""


class ConfigUnreadable(ConfigError):
    """A path given as configuration cannot be read at all."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read config {path}: {reason}")
        self.path = path
        self.reason = reason


class ConfigInvalid(ConfigError):
    """The configuration was read and refused; `problems` holds every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(problems)
        first = f": {problems[0].code} {problems[0].message}" if problems else ""
        super().__init__(f"config refused, {count} problem{'s' if count != 1 else ''}{first}")
        self.problems = tuple(problems)


class RunNodesUnclear(ConfigError):
    """Which nodes to run cannot be told; `nodes` holds those that could be asked for."""

    def __init__(self, reason: str, nodes: Sequence[str]) -> None:
        shown = ", ".join(nodes[:20]) + (f" and {len(nodes) - 20} more" if len(nodes) > 20 else "")
        super().__init__(f"{reason}; choose with --node or --all-nodes among: {shown or 'none'}")
        self.nodes = tuple(nodes)


class MethodUnusable(ConfigError):
    """A file that was added to the methods holds none that can be used."""


class WireError(ApplianceError):
    """Bytes and messages do not fit each other."""


class EncodeError(WireError):
    """A message cannot be written in the asked encoding."""


class DecodeError(WireError):
    """Bytes from outside are not a message; the only error a decoder raises."""


class BusError(ApplianceError):
    """The broker, or our connection to it."""


class BusUnavailable(BusError):
    """Not connected now; the sender keeps the message and tries again."""

    retryable = True


class BusDenied(BusUnavailable):
    """The broker's permissions do not allow it."""


class BusUnauthorized(BusError):
    """The broker refused our credentials at start."""


class StreamRefused(BusError):
    """JetStream does not do what was asked of it; `code` is its own number of the error, 0 where it has none."""

    retryable = True

    def __init__(self, what: str, reason: str, code: int = 0) -> None:
        super().__init__(f"{what}: {reason}")
        self.code = code


class SubjectInvalid(BusError):
    """The text is no subject we may use."""

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"invalid subject {subject[:80]!r}: {reason}")
        self.subject = subject
        self.reason = reason


class PayloadTooLarge(BusError):
    """Payload and headers exceed what the broker takes in one message."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"message of {size_bytes} bytes exceeds the broker's limit of {limit_bytes} bytes"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class StoreError(ApplianceError):
    """The durable store in the state directory."""


class StoreFull(StoreError):
    """No room: the disk or the configured limit. Nothing was taken, nothing stored was touched."""

    retryable = True


class StoreUnusable(StoreError):
    """The database is damaged, empty where it should not be, or of an unknown version."""


class StoreLocked(StoreError):
    """Another process has the store open."""


class HandlerError(ApplianceError):
    """A handler refused or failed; the text is meant for the sender and the error log."""


class PathForbidden(HandlerError):
    """A file name leads outside the data directory, or is no file name."""


class CommandForbidden(HandlerError):
    """The command is not in the subscriber's `allow_commands`."""


class AnswerUnwanted(HandlerError):
    """Nobody waits for the rest of the answer: the handler ends, and that is no failure."""

    def __init__(self) -> None:
        super().__init__("nobody waits for the answer any more")


class BeginAgain(HandlerError):
    """The sender is told to begin anew and does so by itself, or has given up: a word between the two, and no failure."""


class AnswerTooLarge(HandlerError):
    """The answer fits no message of the broker's, and pieces of it would not be the same."""


class ArgumentsInvalid(HandlerError):
    """The message lacks what its method needs."""


class FileFailed(HandlerError):
    """The operating system refused to read or write a file of the data directory (disk full, rights, I/O)."""

    retryable = True

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot write {path[:200]!r} below the data directory: {reason}")
        self.path = path
        self.reason = reason


class CopyFailed(HandlerError):
    """A file cannot be read or written, or is not what was sent."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class FetchFailed(HandlerError):
    """Nothing could be fetched; the text says what was asked for, without its query, and why."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"GET {url.partition('?')[0][:200]}: {reason}")
        self.url = url
        self.reason = reason


class UrlForbidden(FetchFailed):
    """The subscriber's `allow_urls` does not cover the URL, or it leads where it must not."""


REFUSALS = (PathForbidden, CommandForbidden, ArgumentsInvalid, UrlForbidden)
"""Errors of handlers that say that it is not allowed, rather than that it went wrong."""


class RequestInvalid(ApplianceError):
    """A caller of the API sent something unusable. `key` names the field that it is about, if one is known."""

    key: str | None = None


class JobCancelled(RequestInvalid):
    """A further batch of a job that was cancelled."""

    WORDS = "was cancelled: nothing more is asked for it"

    def __init__(self, job: str) -> None:
        super().__init__(f"job {job} {self.WORDS}")


class ArgumentsRefused(RequestInvalid):
    """The arguments are not such as the method takes: the config says which are."""

    key = "method_args"

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"{method}: {reason}")
        self.method = method
        self.reason = reason


class TargetsUnclear(RequestInvalid):
    """Which nodes are meant cannot be told, or none is."""

    key = "targets"


class DaemonError(ApplianceError):
    """Talking to, or starting, the daemon of a state directory."""


class StateDirForeign(DaemonError):
    """Root would leave files in a state directory that its owner could not write any more."""

    def __init__(self, path: object, owner: str) -> None:
        super().__init__(
            f"{path} belongs to {owner}: root would leave files there that {owner} cannot write; run as {owner} "
            f"(systemctl start appliance, or setpriv --reuid {owner} --regid {owner} --init-groups …), "
            "or name another --state-dir"
        )


class DaemonUnreachable(DaemonError):
    """No daemon answers on the socket of this state directory."""


class DaemonAlreadyRunning(DaemonError):
    """Another daemon owns this state directory."""


class BenchError(ApplianceError):
    """A benchmark did not come to its end."""


class BenchDenied(BenchError):
    """The broker's permissions do not allow the subjects of a benchmark."""

    def __init__(self, pattern: str, text: str) -> None:
        super().__init__(
            f"the broker does not let this login publish and subscribe on {pattern}: {text}"
        )
        self.pattern = pattern


class BenchUnsuited(BenchError):
    """What was asked for cannot be measured with this config and broker."""


class BenchFailed(BenchError):
    """Something went wrong on the way; what was measured by then is worth nothing."""


class BenchInterrupted(BenchError):
    """A signal ended it; everything is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped; nothing of it is left on the broker or on the disk")
        self.number = number


class OutputLost(ApplianceError):
    """What was to be written to standard output could not be."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror or error}")
        self.is_reader_gone = error.errno == errno.EPIPE
