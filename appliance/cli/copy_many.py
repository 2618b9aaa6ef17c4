"""Copies many files, a few at once. Each is a copy as any other; a failure does not keep the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from appliance.cli.api_client import NotPermitted
from appliance.cli.copy_job import Copier, NobodyAnswers
from appliance.cli.copy_places import Job
from appliance.cli.copy_report import CopyOutcome, CopyState
from appliance.cli.options import warn
from appliance.cli.progress_view import ProgressView
from appliance.errors import ApplianceError, DaemonError

MAX_TOLD = 20
"""Failures that are told one by one as they come; what came of each is in the JSON."""
AHEAD = 4
"""Jobs that wait for a thread, for each one at work: a list of a hundred thousand is not handed over at once."""


def copy_one(copier: Copier, job: Job) -> tuple[CopyOutcome, ApplianceError | None]:
    """What came of it; beside it what makes all others fail as well."""
    began_mono = time.monotonic()
    outcome = CopyOutcome(job)
    broken: ApplianceError | None = None
    try:
        outcome.copied = copier.copy(job)
        outcome.state = CopyState.COPIED
    except KeyboardInterrupt:
        outcome.state, outcome.reason = CopyState.INTERRUPTED, copier.describe_interrupted(job)
    except NobodyAnswers as error:
        outcome.state, outcome.reason = CopyState.SILENT, str(error)
    except (DaemonError, NotPermitted) as error:
        outcome.reason, broken = str(error), error
    except ApplianceError as error:
        outcome.reason = str(error)
    outcome.seconds = time.monotonic() - began_mono
    return outcome, broken


class ManyView(ProgressView):
    """Shows how far all of it is; takes the place of a view in copiers, whose single files are not shown."""

    def __init__(self, jobs: Sequence[Job], *, is_quiet: bool) -> None:
        super().__init__(is_quiet=is_quiet)
        self._count = len(jobs)
        self._total = sum(job.size or 0 for job in jobs)
        self._done_files = self._done_bytes = 0
        super().begin(self._title())

    def begin(self, name: str) -> None:
        """A file is none that is shown."""

    def show(self, done: int, total: int) -> None:
        """Likewise."""

    def show_reading(self, done: int, total: int) -> None:
        """Likewise."""

    def finish(self, size: int) -> None:
        """A file more is there."""
        with self._lock:
            self._done_files += 1
            self._done_bytes += size
            self._name = self._title()
            super().show(self._done_bytes, max(self._total, self._done_bytes))

    def _title(self) -> str:
        return f"{self._done_files} of {self._count} files"


class ManyCopies:
    """Runs jobs in threads until all are done, one breaks everything, or it is stopped."""

    def __init__(self, make_copier: Callable[[], Copier], view: ProgressView, at_once: int) -> None:
        self._make_copier = make_copier
        self._view = view
        self._at_once = at_once
        self._copiers = threading.local()
        self._told = 0
        self.is_stopped = threading.Event()

    def run(
        self, jobs: Sequence[Job], abort: Callable[[], None]
    ) -> tuple[list[CopyOutcome], ApplianceError | None]:
        """What came of those that were begun, in order. `abort` ends requests that are under way."""
        outcomes: dict[int, CopyOutcome] = {}
        broken: ApplianceError | None = None
        pending: dict[Future[tuple[CopyOutcome, ApplianceError | None]], int] = {}
        numbered = iter(enumerate(jobs))
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="copy")
        try:
            is_more = True
            while is_more or pending:
                while is_more and len(pending) < self._at_once * AHEAD:
                    number, job = next(numbered, (-1, None))
                    is_more = job is not None and not self.is_stopped.is_set()
                    if is_more and job is not None:
                        pending[pool.submit(self._copy, job)] = number
                # in slices: a wait without an end would hold back a signal
                done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome, error = future.result()
                    outcomes[pending.pop(future)] = outcome
                    broken = broken or error
                    self._tell(outcome, error)
                    if error is not None:
                        self.is_stopped.set()
        except KeyboardInterrupt:
            self.is_stopped.set()
            abort()
            for future, number in pending.items():
                if not future.cancel():
                    with contextlib.suppress(KeyboardInterrupt):
                        outcomes[number] = future.result()[0]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._view.end()
        return [outcomes[number] for number in sorted(outcomes)], broken

    def _copy(self, job: Job) -> tuple[CopyOutcome, ApplianceError | None]:
        if self.is_stopped.is_set():
            outcome = CopyOutcome(job, CopyState.INTERRUPTED, reason="not begun")
            return outcome, None
        copier = getattr(self._copiers, "copier", None)
        if copier is None:
            copier = self._copiers.copier = self._make_copier()
        return copy_one(copier, job)

    def _tell(self, outcome: CopyOutcome, error: ApplianceError | None) -> None:
        if outcome.reason is None or error is not None or outcome.state is CopyState.INTERRUPTED:
            return
        self._told += 1
        if self._told <= MAX_TOLD:
            self._view.clear()
            warn(outcome.reason)
        elif self._told == MAX_TOLD + 1:
            warn("more failed; -o json tells each")
