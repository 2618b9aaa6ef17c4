"""What the process is told by signals, from the moment on that there is a loop to hear them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from appliance import early
from appliance.core.current import Current
from appliance.core.durations import format_duration
from appliance.core.specs import DesiredState
from appliance.reconcile.trigger import Trigger
from appliance.telemetry.report import Telemetry


class Signals:
    """Made before what they are for: one that comes while the daemon is built is neither missed nor fatal."""

    def __init__(
        self, telemetry: Telemetry, looks: Trigger, desired: Current[DesiredState]
    ) -> None:
        self._telemetry = telemetry
        self._desired = desired
        self.stop = asyncio.Event()
        self.stop_now = asyncio.Event()
        """Somebody has asked twice."""
        self.report_by(lambda: None)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, looks.set, "signal")
        # last: what comes from here on is not missed
        if early.take_hup():
            looks.set("signal")

    def report_by(self, report: Callable[[], None]) -> None:
        """Whom SIGUSR1 asks for the status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, report)

    def _on_stop(self, number: int) -> None:
        if self.stop.is_set():
            self.stop_now.set()
            return
        self._telemetry.daemon_stopping(signal.Signals(number).name)
        if number == signal.SIGINT:
            limit = format_duration(self._desired.value.reload.drain_timeout_s)
            print(  # noqa: T201 - for the one at the terminal, whatever the log's format
                f"appliance: stopping: what is in hand may end, up to {limit}; a second Ctrl-C stops at once",
                file=sys.stderr,
                flush=True,
            )
        self.stop.set()
