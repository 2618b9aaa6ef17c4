"""Runs a command of ours on a terminal of its own, as a person would see it."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Callable, Mapping

from tests.support import forked


class OnTerminal:
    """A command whose stdout and stderr are a terminal; `said` is all that it wrote."""

    def __init__(
        self,
        *arguments: str,
        state_dir: str | os.PathLike[str] | None = None,
        columns: int = 100,
        env: Mapping[str, str] = os.environ,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        main_fd, side_fd = pty.openpty()
        termios.tcsetwinsize(side_fd, (24, columns))
        self._main_fd = main_fd
        self.said = ""
        # a terminal is asked how wide it is; shells keep COLUMNS to themselves
        environment = {name: value for name, value in env.items() if name != "COLUMNS"}
        if state_dir is not None:
            environment["APPLIANCE_STATE_DIR"] = str(state_dir)
        try:
            self.process = forked.start(
                arguments, stdout=side_fd, stderr=side_fd, env=environment, cwd=cwd
            )
        finally:
            os.close(side_fd)

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main_fd)

    def read(self, timeout_s: float) -> bool:
        """Add what comes within the time; False at the end."""
        if not select.select([self._main_fd], [], [], timeout_s)[0]:
            return True
        try:
            raw = os.read(self._main_fd, 65_536)
        except OSError:  # the other side of a terminal has gone
            return False
        self.said += raw.decode(errors="replace")
        return bool(raw)

    def until(self, condition: Callable[[str], object], timeout_s: float = 60.0) -> None:
        """Read until what was said fulfils the condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.said):
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {self.said[-2_000:]!r}"
            if not self.read(0.2):
                assert condition(self.said), f"it ended: {self.said[-2_000:]!r}"

    def wait(self, timeout_s: float = 60.0) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + timeout_s
        while self.read(0.2):
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {self.said[-2_000:]!r}"
        return self.process.wait(60)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
