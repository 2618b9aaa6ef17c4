"""Standard output and error that fail in our words: a full disk or a reader that has gone is no bug of ours.

A write to standard output that fails raises `OutputLost`, which nobody else raises and nothing on the way takes for an
error of a file of its own. One to standard error is noted: there is no place left to tell it, and the answer is worth
more. A descriptor that was closed before we began is filled: what is opened next would take its number, and get what is
meant for people.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from appliance.errors import OutputLost

_ERRORS = "backslashreplace"
"""A locale that has no arrow or dot must not turn an answer into a failure."""


class _Out(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from None


class _Err(io.FileIO):
    has_lost = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            self.has_lost = True
            return memoryview(data).nbytes


def fill_closed() -> None:
    """Put something behind each of the three descriptors that is closed; what is written to standard output then fails."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number: this one
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)


def guard() -> None:
    """Take the streams of the process over; those that somebody else has put in their place are left alone."""
    fill_closed()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stdout is None or _is_original(sys.stdout, 1):
        sys.stdout = _wrap(_Out(1, "w", closefd=False), sys.stdout)
    if sys.stderr is None or _is_original(sys.stderr, 2):
        sys.stderr = _wrap(_Err(2, "w", closefd=False), sys.stderr)


def finish() -> bool:
    """Write what waits; whether everything that was meant for standard error got there.

    Raises:
        OutputLost: standard output did not take it.
    """
    sys.stdout.flush()
    raw = _raw_of(sys.stderr)
    return not (isinstance(raw, _Err) and raw.has_lost)


@contextlib.contextmanager
def end_with_reader() -> Iterator[None]:
    """While it follows something: end as soon as nobody reads standard output any more, and not only with what comes next.

    Raises:
        OutputLost: the reader of the pipe has gone.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGPIPE) is not signal.SIG_IGN or not _is_pipe(1):
        yield  # a file has no reader, and a terminal that closes says so by itself
        return
    gone = threading.Event()

    def on_gone(_number: int, _frame: object) -> None:
        # any other broken pipe is told to whoever wrote to it
        if gone.is_set():
            gone.clear()
            raise OutputLost(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    main_thread = threading.get_ident()
    woken, wake = os.pipe()

    def watch() -> None:
        poll = select.poll()
        poll.register(1, 0)  # errors and hang-ups are always told
        poll.register(woken, select.POLLIN)
        if any(number == 1 for number, _ in poll.poll()):
            gone.set()
            signal.pthread_kill(main_thread, signal.SIGPIPE)

    signal.signal(signal.SIGPIPE, on_gone)
    watching = threading.Thread(target=watch, name="reader of standard output", daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.close(wake)
        watching.join()
        os.close(woken)


def _is_pipe(number: int) -> bool:
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def give_up_output() -> None:
    """Throw away what waits for standard output, so that the end of the process does not try it again."""
    if isinstance(_raw_of(sys.stdout), _Out):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process


def _raw_of(stream: TextIO) -> object:
    buffer = getattr(stream, "buffer", None)
    # with PYTHONUNBUFFERED there is no buffer between
    return getattr(buffer, "raw", buffer)


def _is_original(stream: TextIO, number: int) -> bool:
    raw = _raw_of(stream)
    return type(raw) is io.FileIO and raw.fileno() == number


def _wrap(raw: io.FileIO, old: Any) -> io.TextIOWrapper:
    if old is not None:
        old.flush()
    is_err = isinstance(raw, _Err)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if old is None else old.encoding,
        errors=_ERRORS,
        line_buffering=is_err or raw.isatty(),
        write_through=is_err or (old is not None and old.write_through),
    )
