"""`cp`: copies files from nodes, to nodes and between nodes, as scp does."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Annotated, Any

import typer

from appliance.api.model import Chosen, Count, JobBegun, Line
from appliance.cli.api_client import ApiClient, ApiRefused, NotPermitted
from appliance.cli.choosing import ExcludeOption, Rollout, say_nodes
from appliance.cli.copy_job import Copier, NobodyAnswers
from appliance.cli.copy_places import Job, PlacesUnclear, read_place
from appliance.cli.copy_plan import CopyPlan, CopyWishes, NotListed, Planner, make_directories
from appliance.cli.copy_report import (
    TROUBLES,
    CopyOutcome,
    CopyState,
    exit_code_of,
    facts_of,
    summary_of,
)
from appliance.cli.exec_command import INTERRUPTED
from appliance.cli.options import (
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    read_duration,
    warn,
)
from appliance.cli.progress_view import ProgressView
from appliance.cli.server_options import connect
from appliance.cli.standing import Progress
from appliance.core.copying import MAX_MODE, Attributes, find_attribute_problem
from appliance.core.escape import escape_line
from appliance.core.listing import COPY_LIST, RECURSIVE, Entry, read_entries
from appliance.core.names import is_node_name
from appliance.core.targets import EVERYTHING, split_targets
from appliance.errors import ApplianceError, DaemonError, JobCancelled

DEFAULT_WAIT = "30s"

_HELP = """Copy files from a node, to a node, or between nodes, as scp does.

A file at a node is written NODE:/PATH, with an absolute path. Several sources, or a target that ends
with a slash, copy into a directory. Regular files are copied, up to max_file_bytes of either node (1
GiB unless its config says more): what is larger than a message goes in pieces, is checked by SHA-256,
and goes on after broken lines and restarts of either node. A file that grows meanwhile, as logs do,
is copied as it was at the beginning; holes stay holes.

In place of a NODE stand targets of several: ship1,ship2, patterns ('ship*'), @role, label=value, all; -x
leaves nodes out, --dry-run shows what would go where, --batch and --max-fail are as with exec.
From several nodes each file goes into a directory of its node: ./logs/ship1/syslog. To several nodes
each gets its own. A path at a node may be a pattern of * ? and [...], which the node answers within
allow_paths. With -r directories are copied with what is below them, those at the target made as they
are needed; links are not followed out of them, and what is no regular file is told and left out.

The target is replaced in one step when the whole is there and right. It keeps the mode of the file
that was there; a new one at a node is for its owner alone (0600). -p keeps mode and time of change of
the source, and its owner and group where who writes may give files away and knows them, as root does.
--mode and --owner say what it gets; where that cannot be, nothing is replaced. Its directory must be
there; --mkdir makes it, at a node, where allow_paths has the directory, too.

What may be read at a node is allow_paths of its REQCopyFileFrom, what may be written that of its
REQCopyFileTo. To fetch files the own node subscribes REQCopyFileTo and accepts the sender; it needs
no allow_paths for that. A Go node gives and takes files up to 1,000,000 bytes, and does not say what
came of one that it took: that is told, and counts as copied.

\b
Exit status: 0 all copied, 1 some failed, 3 some nodes gave no sign of life for --wait, 64 wrong use,
69 no daemon, 130 interrupted. Interrupting ends a copy from or to here at once and leaves the target
as it was; one between two nodes that has begun goes on.

\b
Examples:
  appliance cp ship1:/var/log/syslog ./
  appliance cp ./nginx.conf ship1:/etc/nginx/nginx.conf
  appliance cp ship1:/var/log/a.log ship2:/var/log/b.log ./logs/
  appliance cp ship1:/srv/backup.tar ship2:/srv/
  appliance cp 'ship*:/var/log/syslog' ./logs/
  appliance cp -r ./site '@web:/srv/www/'
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cp", help=_HELP, no_args_is_help=True)(copy)


def copy(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="A file: PATH here, NODE:/PATH there.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A file, or a directory that ends with a slash.")
    ],
    is_quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    mkdir: Annotated[
        bool, typer.Option("--mkdir", help="Make the target's missing directories at a node.")
    ] = False,
    is_recursive: Annotated[
        bool,
        typer.Option("-r", "--recursive", help="Copy directories with all that is below them."),
    ] = False,
    preserves: Annotated[
        bool,
        typer.Option("-p", "--preserve", help="Keep mode, time of change and, as root, owner."),
    ] = False,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="OCTAL", help="The mode of each file, as 0640.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="USER[:GROUP]", help="The owner of each file."),
    ] = None,
    at_once: Annotated[
        int, typer.Option("--at-once", metavar="N", min=1, max=16, help="Files at once.")
    ] = 8,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The own node that takes part.")
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            "--wait", metavar="TIME", help="Give up after that long without a sign of life."
        ),
    ] = DEFAULT_WAIT,
    exclude: ExcludeOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be copied to where, and copy nothing."),
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N|N%",
            help="Copy for so many nodes at a time; for the next when these have it.",
        ),
    ] = None,
    max_fail: Annotated[
        str | None,
        typer.Option(
            "--max-fail",
            metavar="N|N%",
            help="With --batch: for no further nodes once more than so many failed.",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Copy one file after another; a failure does not keep the others."""
    wait_s = read_duration("--wait", wait) or 0.0
    if not 1 <= wait_s <= 3_600:
        raise typer.BadParameter("between 1s and 1h", param_hint="--wait")
    client = connect(state_dir)
    wishes = CopyWishes(
        is_recursive=is_recursive,
        preserves=preserves,
        mode=_read_mode(mode),
        owner=_read_owner(owner),
    )
    finder = FleetFinder(client, node=from_node, wait_s=wait_s, exclude=exclude or ())
    try:
        with _ending_like_interrupted() as ended_by:
            plan = Planner(finder, wishes).plan([*sources, target])
            rollout = Rollout.plan(list(dict.fromkeys(map(_node_of, plan.jobs))), batch, max_fail)
            if dry_run:
                return _show_plan(plan, rollout, as_json=output is Output.JSON)
            make_directories(plan.directories, target)
    except PlacesUnclear as error:
        raise typer.BadParameter(str(error), param_hint="SOURCE… TARGET") from None
    except KeyboardInterrupt:
        return 128 + ended_by[0] if ended_by else INTERRUPTED
    for outcome in plan.known:
        _tell_known(outcome)
    into = _begin_job(client, [*sources, target], len(plan.jobs), from_node)
    copies = _Copies(
        client, from_node, wait_s, makes_directories=mkdir, is_quiet=is_quiet, into=into
    )
    with _ending_like_interrupted() as ended_by:
        outcomes, broken, not_asked = _copy_in_batches(copies, plan.jobs, rollout, at_once)
    outcomes = [*plan.known, *outcomes]
    total = len(plan.jobs) + len(plan.known)
    if output is Output.JSON:
        print_json(facts_of(outcomes, total, "" if into is None else into.id, not_asked))
    if broken is not None:
        raise broken
    if not_asked:
        warn(f"not copied for ({rollout.stop_reason}): {say_nodes(not_asked)}")
    if total > 1 and (words := summary_of(outcomes, total)):
        warn(words)
    if any(outcome.state is CopyState.INTERRUPTED for outcome in outcomes):
        return 128 + ended_by[0] if ended_by else INTERRUPTED
    return exit_code_of(outcomes)


class _Copies:
    """How the files of one call are copied."""

    def __init__(
        self,
        client: ApiClient,
        node: str | None,
        wait_s: float,
        *,
        makes_directories: bool,
        is_quiet: bool,
        into: JobBegun | None,
    ) -> None:
        self._client = client
        self._into = into
        self._node = node
        self._wait_s = wait_s
        self._makes_directories = makes_directories
        self._is_quiet = is_quiet

    def _copier(self, view: ProgressView, is_stopped: threading.Event) -> Copier:
        return Copier(
            self._client,
            view,
            node=self._node,
            wait_s=self._wait_s,
            makes_directories=self._makes_directories,
            is_stopped=is_stopped,
            into=self._into,
        )

    def copy_in_row(self, jobs: Sequence[Job]) -> tuple[list[CopyOutcome], ApplianceError | None]:
        """One after the other, each with a view of its own."""
        view = ProgressView(is_quiet=self._is_quiet)
        copier = self._copier(view, threading.Event())
        outcomes: list[CopyOutcome] = []
        for job in jobs:
            with view.ticking():
                outcome, broken = copy_one(copier, job)
            view.end()
            outcomes.append(outcome)
            if outcome.reason is not None and broken is None:
                warn(outcome.reason)
            if broken is not None or outcome.state is CopyState.INTERRUPTED:
                return outcomes, broken
        return outcomes, None

    def copy_at_once(
        self, jobs: Sequence[Job], at_once: int
    ) -> tuple[list[CopyOutcome], ApplianceError | None]:
        """Several at once, with one view of all."""
        view = ManyView(jobs, is_quiet=self._is_quiet)
        many = ManyCopies(
            lambda: self._copier(view, many.is_stopped),
            view,
            at_once,
            "" if self._into is None else self._into.id,
        )
        with view.ticking():
            return many.run(jobs, self._client.end_requests)


def _node_of(job: Job) -> str:
    """Whose batch a copy belongs to: its target's, else its source's."""
    return job.target.node or job.source.node or ""


def _copy_in_batches(
    copies: _Copies, jobs: Sequence[Job], rollout: Rollout, at_once: int
) -> tuple[list[CopyOutcome], ApplianceError | None, list[str]]:
    """What came of it, what broke all of it, and the nodes whose turn did not come because too many failed."""
    outcomes: list[CopyOutcome] = []
    for number, names in enumerate(rollout.batches, 1):
        if len(rollout.batches) > 1:
            warn(f"batch {number} of {len(rollout.batches)}: {say_nodes(names)}")
        part = [job for job in jobs if _node_of(job) in set(names)]
        is_single = len(part) == 1 or at_once == 1
        done, broken = copies.copy_in_row(part) if is_single else copies.copy_at_once(part, at_once)
        outcomes += done
        if broken is not None or any(item.state is CopyState.INTERRUPTED for item in done):
            return outcomes, broken, []
        troubled = {_node_of(item.job) for item in outcomes if item.state in TROUBLES}
        if rollout.max_fail is not None and len(troubled) > rollout.max_fail:
            return outcomes, None, [name for rest in rollout.batches[number:] for name in rest]
    return outcomes, None, []


def _show_plan(plan: CopyPlan, rollout: Rollout, *, as_json: bool) -> int:
    """What would be copied; it is the result, and stands on stdout."""
    if as_json:
        print_json(
            {
                "dry_run": True,
                "copies": [
                    {"source": str(job.source), "target": str(job.target), "size": job.size}
                    for job in plan.jobs
                ],
                "batches": rollout.batches,
                "max_fail": rollout.max_fail,
                "left_out": [
                    {"source": str(known.job.source), "why": known.reason} for known in plan.known
                ],
            }
        )
        return exit_code_of(plan.known)
    typer.echo(f"would copy {len(plan.jobs)} file{'s' if len(plan.jobs) != 1 else ''}")
    for job in plan.jobs:
        typer.echo(f"  {escape_line(str(job.source))} to {escape_line(str(job.target))}")
    for number, names in enumerate(rollout.batches if len(rollout.batches) > 1 else (), 1):
        typer.echo(f"batch {number}: {say_nodes(names)}")
    if rollout.max_fail is not None:
        typer.echo(f"no further batch once {rollout.stop_reason}")
    for known in plan.known:
        _tell_known(known)
    return exit_code_of(plan.known)


def _begin_job(
    client: ApiClient, words: Sequence[str], files: int, node: str | None
) -> JobBegun | None:
    """The job that all files become parts of; None for a single file, which is one by itself, and where none is kept."""
    if files < 2:
        return None
    body = {"args": list(map(_in_full, words)), "files": files, "from_node": node}
    try:
        return client.post("/api/v1/jobs", JobBegun, body).value
    except NotPermitted:
        raise
    except ApiRefused:
        # a daemon of an earlier version, or a full disk: copies are worth more than what is kept of them
        return None


def _in_full(word: str) -> str:
    """A place as it is meant wherever the job is looked at."""
    if read_place(word).node is not None:
        return word
    slash = "/" if word.endswith("/") and word.strip("/") else ""
    return os.path.abspath(word) + slash


def _tell_known(outcome: CopyOutcome) -> None:
    said = outcome.reason or ""
    if outcome.state is CopyState.SKIPPED:
        said = f"{outcome.job.source}: {said}: it is not copied"
    warn(said)


def _read_mode(text: str | None) -> int | None:
    if text is None:
        return None
    if not text or len(text) > 4 or set(text) - set("01234567") or int(text, 8) > MAX_MODE:
        raise typer.BadParameter("octal, up to 0777, as in 0640", param_hint="--mode")
    return int(text, 8)


def _read_owner(text: str | None) -> str:
    problem = find_attribute_problem(Attributes(owner=text or ""))
    if problem is not None:
        raise typer.BadParameter(problem, param_hint="--owner")
    return text or ""


@contextlib.contextmanager
def _ending_like_interrupted() -> Iterator[list[int]]:
    """Let timeout(1) and a terminal that is closed end us as Ctrl-C does: nothing is left at the daemon.

    Gives where the number of the signal stands once it came.
    """
    ended_by: list[int] = []

    def end(number: int, _frame: object) -> None:
        ended_by.append(number)
        raise KeyboardInterrupt

    # where one is ignored, as under nohup, that stands
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield ended_by
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


# Asks the daemon which nodes are meant, and nodes which files they have.

LIST_TIME_S = 600.0
"""What a node has to look at a large tree."""


class FleetFinder:
    """Implements `copy_plan.Finder` by the API."""

    def __init__(
        self,
        client: ApiClient,
        *,
        node: str | None,
        wait_s: float,
        exclude: Sequence[str] = (),
    ) -> None:
        self._exclude = split_targets(exclude)
        self._client = client
        self._node = node
        self._wait_s = wait_s

    def nodes(self, targets: str, method: str) -> list[str]:
        """See `Finder`. A plain name is that node, known or not."""
        if is_node_name(targets) and targets != EVERYTHING and not self._exclude:
            return [targets]
        body: dict[str, Any] = {
            "targets": split_targets([targets]),
            "exclude": self._exclude,
            "method": method,
        }
        if self._node is not None:
            body["from_node"] = self._node
        try:
            chosen = self._client.post("/api/v1/targets", Chosen, body).value
        except ApiRefused as error:
            if error.status == 400:
                raise PlacesUnclear(str(error)) from None
            raise
        for left_out in chosen.left_out:
            warn(f"{left_out.node} is left out: {left_out.why}")
        for note in chosen.notes:
            warn(note)
        if not chosen.nodes:
            raise PlacesUnclear(f"{targets}: no node is left")
        return list(chosen.nodes)

    def files(self, node: str, path: str, *, is_recursive: bool) -> list[Entry]:
        """See `Finder`."""
        body: dict[str, Any] = {
            "to_nodes": [node],
            "method": COPY_LIST,
            "method_args": [path, *([RECURSIVE] if is_recursive else [])],
            "method_timeout": LIST_TIME_S,
            "expires": self._wait_s,
            "for_caller": True,
        }
        if self._node is not None:
            body["from_node"] = self._node
        query = {"wait": f"{LIST_TIME_S:g}s", "idle": f"{self._wait_s:g}s"}
        asked = _Asked(f"{node}:{path}")
        try:
            for line in self._client.stream("/api/v1/messages", Line, body, query, LIST_TIME_S):
                asked.take(line.value)
                if asked.is_over:
                    break
        finally:
            self._take_back(asked)
        return asked.entries(self._wait_s)

    def _take_back(self, asked: _Asked) -> None:
        if asked.id is None or asked.progress.is_settled or asked.is_over:
            return
        try:
            body = {"ids": [str(asked.id)], "pending": True}
            self._client.post("/api/v1/outbox/drop", Count, body)
        except ApplianceError:
            pass  # it expires by itself


class _Asked:
    """One question, from the lines that the API tells."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.id: int | None = None
        self.progress = Progress()
        self.is_over = False
        self._problem: str | None = None
        self._data = bytearray()
        self._note = ""

    def take(self, line: Line) -> None:
        match line.event:
            case "accepted":
                self.id = line.id or None
                self._note = (line.note or "").partition(";")[0]
            case "rejected":
                self._problem, self.is_over = line.reason or "not accepted", True
            case "refused" | "dead":
                self.progress.take(line)
                self._problem, self.is_over = self.progress.describe(), True
            case "missed" | "waits" | "sent" | "working" | "delivered":
                self.progress.take(line)
            case "reply":
                self._data += (
                    base64.b64decode(line.data_base64)
                    if line.data_base64
                    else (line.data or "").encode("utf-8", "backslashreplace")
                )
                if line.has_more:
                    return
                self.is_over = True
                status = line.exit_status if isinstance(line.exit_status, str) else None
                if status != "0":
                    self._problem = (status or "it does not say what it has").removeprefix(
                        "failed: "
                    )

    def entries(self, wait_s: float) -> list[Entry]:
        if self._problem is not None:
            # whether its own time or the patience of whoever waits is over first is chance, and says the same
            raise NotListed(f"{self._place}: {self._problem}", is_silent=self.progress.is_expired)
        if not self.is_over:
            note = f"; {self._note}" if self._note else ""
            raise NotListed(
                f"{self._place}: no list of files came for {wait_s:g} s (--wait): the node is away, subscribes no"
                f" {COPY_LIST} (with REQCopyFileFrom, of this version on), or is a Go node{note}",
                is_silent=True,
            )
        try:
            return read_entries(bytes(self._data))
        except (ValueError, json.JSONDecodeError) as error:
            raise NotListed(f"{self._place}: {error}", is_silent=False) from None


# Copies many files, a few at once. Each is a copy as any other; a failure does not keep the others.

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
    except ApiRefused as error:
        outcome.reason = str(error)
        broken = error if JobCancelled.WORDS in outcome.reason else None
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

    def __init__(
        self,
        make_copier: Callable[[], Copier],
        view: ProgressView,
        at_once: int,
        job_id: str = "",
    ) -> None:
        self._job_id = job_id
        self._make_copier = make_copier
        self._view = view
        self._at_once = at_once
        self._copiers = threading.local()
        self._told = 0
        self._silent: set[tuple[str | None, str | None]] = set()
        """From and to which nodes no sign of life came: nothing more of that is waited for."""
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
        way = (job.source.node, job.target.node)
        if way in self._silent:
            why = f"{job.source}: not tried: no sign of life came for a file before"
            return CopyOutcome(job, CopyState.SILENT, reason=why), None
        copier = getattr(self._copiers, "copier", None)
        if copier is None:
            copier = self._copiers.copier = self._make_copier()
        outcome, broken = copy_one(copier, job)
        if outcome.state is CopyState.SILENT:
            self._silent.add(way)
        return outcome, broken

    def _tell(self, outcome: CopyOutcome, error: ApplianceError | None) -> None:
        if outcome.reason is None or error is not None or outcome.state is CopyState.INTERRUPTED:
            return
        self._told += 1
        if self._told <= MAX_TOLD:
            self._view.clear()
            warn(outcome.reason)
        elif self._told == MAX_TOLD + 1:
            where = f", and appliance jobs show {self._job_id}" if self._job_id else ""
            warn(f"more failed; -o json tells each{where}")
