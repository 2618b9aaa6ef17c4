"""The status as a person likes to read it: first whether all is well, then what is not, then
everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import typer
from msgspec import UNSET, UnsetType
from rich.console import (
    Console,
    ConsoleOptions,
    Group,
    JustifyMethod,
    RenderableType,
    RenderResult,
)
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from appliance.api.model import Node, Override, Status, Worker
from appliance.cli.problem_text import say_count
from appliance.cli.terminal import GAP, clip_lines
from appliance.cli.verdict_view import say_commit, split_problems
from appliance.core.escape import escape_line
from appliance.core.problems import Problem, Severity
from appliance.core.times import EXPIRES_SOON_S, read_time, say_ago, say_moment, say_span

NAME_WIDTH = 9
"""Of what stands before a line."""
MAX_PROBLEMS = 3
MAX_SKEWS = 5
MAX_METHODS = 10
MAX_PROCESSES = 16
MAX_ROWS = 200
"""Beyond it, nodes whose workers all run are one line each."""

_PHASE_STYLES = {
    "running": "green",
    "starting": "cyan",
    "draining": "cyan",
    "backing_off": "yellow",
    "stopped": "red",
    "failed": "bold red",
}


def render_status(
    status: Status, now: float, *, nodes: frozenset[str] | None = None, max_rows: int | None = None
) -> RenderableType:
    """Everything, or the workers of some nodes only; at most `max_rows` of them, with those that do
    not run first.
    """
    parts: list[RenderableType] = [*_health_lines(status)]
    parts += [_line("drift", say_override(item), "cyan") for item in status.overrides]
    parts += [*_config_lines(status, now), _broker_line(status), _outbox_line(status)]
    parts += [*_store_lines(status), *_enrolment_lines(status), *_secret_lines(status, now)]
    parts += _process_lines(status)
    parts += [*_signature_lines(status), *_input_lines(status), *_method_lines(status), Text("")]
    shown = {name: node for name, node in status.nodes.items() if nodes is None or name in nodes}
    shown, hidden = _choose_workers(shown, max_rows)
    parts.append(_worker_table(shown, now))
    if hidden:
        parts.append(_line("", f"… {_count_hidden(hidden)} more", "dim"))
    return Group(*(_Folded(part) if isinstance(part, Text) else part for part in parts))


def print_status(
    console: Console, status: Status, now: float, *, nodes: frozenset[str] | None = None
) -> None:
    """Everything; on a terminal what is wrong stands at the end once more when the table has pushed it off."""
    with console.capture() as captured:
        console.print(render_status(status, now, nodes=nodes))
    text = clip_lines(captured.get())
    typer.echo(text)
    if not console.is_terminal or is_healthy(status) or text.count("\n") < console.height - 1:
        return
    attempt = status.config.last_attempt
    problems = _problem_lines(attempt.problems) if attempt and attempt.is_refused else []
    console.print(Group(Text(""), *map(_Folded, (*_health_lines(status), *problems))))


def fit_status(
    console: Console, status: Status, now: float, *, nodes: frozenset[str] | None = None
) -> RenderableType:
    """The same within the height of the terminal, however its lines fold."""

    def render(rows: int) -> RenderableType:
        return render_status(status, now, nodes=nodes, max_rows=rows)

    def fits(rows: int) -> bool:
        return len(console.render_lines(render(rows), pad=False)) <= console.height

    most, too_many = 0, console.height + 1
    while too_many - most > 1:
        middle = (most + too_many) // 2
        most, too_many = (middle, too_many) if fits(middle) else (most, middle)
    return render(most)


def _choose_workers(
    nodes: dict[str, Node], max_rows: int | None
) -> tuple[dict[str, Node], list[Worker]]:
    """The nodes with as many workers as fit, and the workers that do not."""
    workers = [(name, worker) for name, node in nodes.items() for worker in node.workers]
    if max_rows is None or len(workers) <= max_rows:
        return nodes, []
    workers.sort(key=lambda item: item[1].is_running)
    chosen: dict[str, list[Worker]] = {name: [] for name, _ in workers[:max_rows]}
    for name, worker in workers[:max_rows]:
        chosen[name].append(worker)
    shown = {name: Node(workers=chosen[name]) for name in nodes if name in chosen}
    return shown, [worker for _, worker in workers[max_rows:]]


def _count_hidden(hidden: list[Worker]) -> str:
    running = sum(1 for worker in hidden if worker.is_running)
    if running == len(hidden):
        return f"{running} running"
    return f"{running} running and {len(hidden) - running} not running"


def say_override(override: Override) -> str:
    """One worker that is not as the config says."""
    words = "beside" if override.action == "started" else "against"
    return (
        f"{escape_line(override.worker)} {override.action} {words} the config"
        f" by {escape_line(override.by)}"
    )


def is_healthy(status: Status) -> bool:
    """The daemon's own judgement; a daemon that gives none is judged by what must never be."""
    if status.healthy is not UNSET:
        return status.healthy
    attempt = status.config.last_attempt
    workers = [worker for node in status.nodes.values() for worker in node.workers]
    return (
        status.broker.connected
        and (attempt is None or attempt.result != "refused")
        and all(worker.phase in ("running", "starting", "draining") for worker in workers)
    )


def _health_lines(status: Status) -> list[Text]:
    reasons = [_line("", reason, "yellow") for reason in status.degraded_by]
    return [_header(status), *reasons]


def _header(status: Status) -> Text:
    healthy = is_healthy(status)
    words = "stopping" if status.stopping else "healthy" if healthy else "degraded"
    text = Text("● ", style="green" if healthy else "yellow")
    text.append(words, style="bold green" if healthy else "bold yellow")
    text.append(f"   generation {status.generation}")
    text.append(f"   appliance {_say(status.version)}   pid {_say(status.pid)}", "dim")
    return text


def _line(name: str, value: str, style: str = "") -> Text:
    text = Text(f"{name:{NAME_WIDTH}s}", style="dim")
    text.append(escape_line(value), style=style)
    return text


class _Folded:
    """A line whose rest stands below its text where it does not fit, and not below its name."""

    def __init__(self, line: Text) -> None:
        self._line = line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line, width = self._line, options.max_width
        if line.cell_len <= width or width <= 2 * NAME_WIDTH:
            yield line
            return
        first, *rest = line[NAME_WIDTH:].wrap(console, width - NAME_WIDTH)
        yield Text.assemble(line[:NAME_WIDTH], first)
        for part in rest:
            yield Text.assemble(" " * NAME_WIDTH, part)


def _config_lines(status: Status, now: float) -> list[Text]:
    config = status.config
    digest = config.digest or "none"
    words = [digest[: 7 + 12] if digest.startswith("sha256:") else digest[:12]]
    if config.revision:
        words.append(say_commit(config))
    words.append(f"applied {say_ago(config.applied_at, now)}")
    words.append(" ".join(config.paths))
    lines = [_line("config", "   ".join(filter(None, words)))]
    if config.pinned is not None:
        pinned = config.pinned
        why = "rolled back" if pinned.reason == "rollback" else "went back after a trial"
        by = f" by {pinned.by}" if pinned.by else ""
        said = f"pinned: {why} {say_ago(pinned.since, now)}{by}, until the files change"
        lines.append(_line("", said, "yellow"))
    if config.on_trial is not None:
        left = round(config.on_trial.ends_in_seconds)
        lines.append(_line("", f"on trial for another {left} s", "cyan"))
    attempt = config.last_attempt
    if attempt is None:
        return lines
    trigger = f" ({attempt.trigger})" if attempt.trigger else ""
    said = f"last look {say_ago(attempt.at, now)}: {attempt.result}{trigger}"
    lines.append(_line("", said, "red" if attempt.is_refused else "dim"))
    return lines + _problem_lines(attempt.problems)


def _problem_lines(problems: list[Problem]) -> list[Text]:
    """Errors first; what does not fit is counted, warnings apart from errors."""
    errors, warnings = split_problems(problems)
    lines = [
        _line("", f"  {_say_problem(item)}", "red" if item.severity is Severity.ERROR else "yellow")
        for item in [*errors, *warnings][:MAX_PROBLEMS]
    ]
    more_errors = max(0, len(errors) - MAX_PROBLEMS)
    more_warnings = len(problems) - len(lines) - more_errors
    rest = [f"{more_errors} more"] if more_errors else []
    if more_warnings:
        rest.append(f"{more_warnings} warning{'s' if more_warnings != 1 else ''}")
    if rest:
        lines.append(_line("", f"  and {', '.join(rest)}", "dim"))
    return lines


def _say_problem(problem: Problem) -> str:
    place = problem.file
    if place and problem.line:
        place += f":{problem.line}:{problem.column or 1}"
    return " ".join(word for word in (problem.code, place, problem.message) if word)


def _broker_line(status: Status) -> Text:
    broker = status.broker
    words = "connected to" if broker.connected else "NOT connected to"
    embedded = " (embedded)" if broker.embedded else ""
    count = broker.reconnects
    again = f", {say_count(count, 'reconnect')}" if count else ""
    said = f"{words} {broker.server or 'any server'}{embedded}{again}"
    return _line("broker", said, "" if broker.connected else "bold red")


def _method_lines(status: Status) -> list[Text]:
    """Methods that the config declares; those of the program are always there."""
    own = [item for item in status.methods if item.source == "config"]
    if not own:
        return []
    names = [f"{item.name} {item.usage}".strip() for item in own[:MAX_METHODS]]
    more = f", and {len(own) - MAX_METHODS} more" if len(own) > MAX_METHODS else ""
    return [_line("methods", f"{', '.join(names)}{more}")]


def _outbox_line(status: Status) -> Text:
    outbox = status.outbox
    said = f"{outbox.pending} pending, {outbox.in_flight} in flight, {outbox.dead} dead"
    if outbox.pending:
        said += f", oldest waits {say_span(outbox.oldest_seconds)}"
    waiting = ", ".join(f"{count} {why}" for why, count in status.waiting.items() if count)
    if waiting:
        said += f"; waiting: {waiting}"
    return _line("outbox", said, "yellow" if outbox.dead else "")


def _enrolment_lines(status: Status) -> list[Text]:
    count = status.enrolment.pending
    if not count:
        return []
    asks = "1 new node asks" if count == 1 else f"{count} new nodes ask"
    return [_line("asking", f"{asks} to be let in: appliance nodes pending", "yellow")]


def _secret_lines(status: Status, now: float) -> list[Text]:
    """Secrets and certificates that can be used, and not for long; those that cannot stand above, as a degradation."""
    lines = []
    for place, secret in status.secrets.items():
        at = read_time(secret.expires_at)
        if secret.usable and at is not None and at - now < EXPIRES_SOON_S:
            said = f"{place} ends in {say_span(at - now)}, {say_moment(secret.expires_at)}"
            lines.append(_line("secret", said, "yellow"))
    return lines


def _store_lines(status: Status) -> list[Text]:
    """The inbox where something is in it, and the store where it has something to say."""
    lines = []
    inbox, store = status.inbox, status.store
    if inbox.unfinished:
        said = f"{inbox.unfinished} unfinished"
        said += f", {inbox.orphaned} of them without a worker" if inbox.orphaned else ""
        lines.append(_line("inbox", said, "yellow" if inbox.orphaned else ""))
    if store.state != "ok" or store.text:
        said = f"{store.state}: {store.text}" if store.text else store.state
        lines.append(_line("store", said, "yellow" if store.state == "ok" else "bold red"))
    return lines


def _process_lines(status: Status) -> list[Text]:
    """Processes that compute, one line each."""
    lines = []
    for process in status.processes[:MAX_PROCESSES]:
        said = f"{process.number}   {process.phase.replace('_', ' ')}"
        said += f"   pid {process.pid}" if process.pid is not None else ""
        said += f"   {process.handled} done"
        if process.restarts:
            said += f", {say_count(process.restarts, 'restart')}"
        if process.doing:
            said += f"   {process.doing}, {say_span(process.busy_seconds)}"
        is_away = process.phase == "backing_off"
        lines.append(
            _line(
                "process",
                said + (f"   {process.error}" if process.error else ""),
                "red" if is_away else "",
            )
        )
    more = len(status.processes) - MAX_PROCESSES
    return [*lines, _line("", f"… {more} more", "dim")] if more > 0 else lines


def _signature_lines(status: Status) -> list[Text]:
    """What did not count because of its signature, and clocks that differ."""
    refused = {why: count for why, count in status.signatures.refused.items() if count}
    lines = []
    if refused:
        reasons = ", ".join(f"{count} {why}" for why, count in refused.items())
        lines.append(_line("signed", f"{sum(refused.values())} did not count: {reasons}", "yellow"))
    if status.audit.summing:
        whose = ", ".join(status.audit.summing[:MAX_SKEWS])
        more = len(status.audit.summing) - MAX_SKEWS
        said = f"repeats of {whose}" + (f" and {more} more" if more > 0 else "") + " are summed up"
        lines.append(_line("audit", said, "yellow"))
    skews = status.signatures.clock_skew_seconds
    for node, ahead_s in list(skews.items())[:MAX_SKEWS]:
        where = "ahead of" if ahead_s > 0 else "behind"
        said = f"the clock of {node} is {say_span(abs(ahead_s))} {where} the one here"
        lines.append(_line("clock", said, "yellow"))
    return lines


def _input_lines(status: Status) -> list[Text]:
    """Steward's inputs that are open, one line each."""
    lines = []
    for name, opened in status.inputs.items():
        said = f"{name} {opened.path or opened.listen}"
        said += f"   {opened.accepted} accepted, {opened.refused} refused"
        if opened.waiting:
            said += f", {opened.waiting} files wait"
        error = opened.error
        lines.append(_line("input", f"{said}: {error}" if error else said, "red" if error else ""))
    return lines


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table of workers; a node has at least one."""

    node: str
    cells: tuple[Text, ...] = ()
    trouble: Text | None = None


_COLUMNS = ("WORKER", "KIND", "PHASE", "IN FLIGHT", "DONE", "FAILED", "SINCE")
_NUMBERS = frozenset({"IN FLIGHT", "DONE", "FAILED", "SINCE"})
_MAX_TROUBLE = 60
_ANY_WIDTH = 10_000
_SHORT_KINDS = {"subscriber": "sub", "publisher": "pub"}


class _WorkerTable:
    """The workers, each in a line that fits the terminal.

    Where it is too narrow for all columns, nodes are headings, kinds are short, and what is wrong with a worker stands
    below it: the name of a worker is what people copy, and is folded last.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = self._make_wide()
        natural = Measurement.get(console, options.update(width=_ANY_WIDTH), wide).maximum
        if natural <= options.max_width:
            yield wide
        else:
            yield from self._make_narrow(options.max_width)

    def _make_wide(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
        for name in ("NODE", *_COLUMNS):
            table.add_column(
                name, justify="right" if name in _NUMBERS else "left", no_wrap=name != "WORKER"
            )
        if any(row.trouble for row in self._rows):
            table.add_column("LAST ERROR", overflow="fold", max_width=_MAX_TROUBLE)
        before = ""
        for row in self._rows:
            title = Text(escape_line(row.node) if row.node != before else "", style="bold")
            table.add_row(title, *row.cells, *([row.trouble] if row.trouble else ()))
            before = row.node
        return table

    def _make_narrow(self, columns: int) -> Iterator[RenderableType]:
        rows = [self._shorten(row.cells) for row in self._rows]
        names = [name.replace("IN FLIGHT", "IN\nFLIGHT") for name in _COLUMNS]
        widths = [
            max(*map(len, name.split("\n")), *(row[at].cell_len for row in rows if row), 0)
            for at, name in enumerate(names)
        ]
        if sum(widths) + GAP * (len(widths) - 1) > columns:
            del names[-1], widths[-1]  # since when it runs is what is missed least
        rest = sum(widths[1:]) + GAP * (len(widths) - 1)
        widths[0] = max(len(names[0]), min(widths[0], columns - rest))
        yield self._make_lines(widths, [[Text(name, style="dim") for name in names]])
        before = ""
        for row, cells in zip(self._rows, rows, strict=True):
            if row.node != before:
                yield Text(escape_line(row.node), style="bold")
                before = row.node
            if cells:
                yield self._make_lines(widths, [cells[: len(widths)]])
            if row.trouble:
                yield Padding(row.trouble, (0, 0, 0, 4))

    def _shorten(self, cells: tuple[Text, ...]) -> list[Text]:
        if not cells:
            return []
        worker, kind, *rest = cells
        short = Text(_SHORT_KINDS.get(kind.plain, kind.plain), style=kind.style)
        return [Text("  ") + worker, short, *rest]

    def _make_lines(self, widths: list[int], rows: list[list[Text]]) -> Table:
        table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for name, width in zip(_COLUMNS, widths, strict=False):
            justify: JustifyMethod = "right" if name in _NUMBERS else "left"
            table.add_column(width=width, justify=justify, overflow="fold", vertical="bottom")
        for row in rows:
            table.add_row(*row)
        return table


def _worker_table(nodes: dict[str, Node], now: float) -> _WorkerTable:
    is_long = sum(len(node.workers) for node in nodes.values()) > MAX_ROWS
    return _WorkerTable(
        [row for name, node in nodes.items() for row in _node_rows(name, node, now, is_long)]
    )


def _node_rows(name: str, node: Node, now: float, is_long: bool) -> Iterator[_Row]:
    workers = node.workers
    if is_long:
        running = [worker for worker in workers if worker.is_running]
        workers = [worker for worker in workers if not worker.is_running]
        if running:
            counts = (
                Text(str(sum(worker.in_flight or 0 for worker in running))),
                Text(str(sum(worker.handled or 0 for worker in running))),
                _failed(sum(worker.failed or 0 for worker in running)),
            )
            said = Text(f"{len(running)} workers")
            yield _Row(name, (said, Text(""), _phase("running"), *counts, Text("")))
    if not workers and not is_long:
        nothing = Text("no workers", style="dim")
        yield _Row(name, (nothing, *(Text("") for _ in _COLUMNS[1:])))
    for worker in workers:
        said_trouble = _say_trouble(worker)
        style = "dim" if worker.is_running else "red"
        trouble = Text(said_trouble, style=style) if said_trouble else None
        yield _Row(name, _worker_cells(worker, now), trouble)


def _worker_cells(worker: Worker, now: float) -> tuple[Text, ...]:
    since = say_ago(worker.since or None, now).removesuffix(" ago")
    return (
        Text(escape_line(worker.subject or worker.name)),
        Text(worker.kind, style="dim"),
        _phase(worker.phase),
        Text(str(worker.in_flight or 0)),
        Text(str(worker.handled or 0)),
        _failed(worker.failed or 0),
        Text(since, style="dim"),
    )


def _say_trouble(worker: Worker) -> str:
    """The last error of a worker and how often it was started again."""
    said = escape_line(worker.last_error or "") or _say_kept(worker)
    return f"{said} ({say_count(worker.restarts, 'restart')})".strip() if worker.restarts else said


def _say_kept(worker: Worker) -> str:
    """What a stream holds for it, where that is something."""
    kept = worker.kept
    if isinstance(kept, UnsetType) or not (kept.waiting or kept.in_hand):
        return ""
    stream = escape_line(kept.stream)
    return f"{say_count(kept.waiting + kept.in_hand, 'message')} in the stream {stream}"


def _phase(phase: str) -> Text:
    return Text(escape_line(phase), style=_PHASE_STYLES.get(phase, ""))


def _failed(count: int) -> Text:
    return Text(str(count), style="red" if count else "")


def _say(value: object) -> str:
    return escape_line(str(value)) if value is not None else "?"
