"""The status as a person likes to read it: first whether all is well, then what is not, then
everything.
"""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from appliance.cli.terminal import clip_lines
from appliance.cli.times import say_ago, say_span
from appliance.cli.verdict_view import is_warning, say_commit, split_problems
from appliance.core.escape import escape_line

Json = dict[str, Any]

MAX_PROBLEMS = 3
MAX_METHODS = 10
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
    status: Json, now: float, *, nodes: frozenset[str] | None = None, max_rows: int | None = None
) -> RenderableType:
    """Everything, or the workers of some nodes only; at most `max_rows` of them, with those that do
    not run first.
    """
    parts: list[RenderableType] = [*_health_lines(status)]
    parts += [_line("drift", say_override(item), "cyan") for item in status.get("overrides") or ()]
    parts += [*_config_lines(status, now), _broker_line(status), _outbox_line(status)]
    parts += _store_lines(status)
    parts += [*_input_lines(status), *_method_lines(status), Text("")]
    shown = {
        name: node
        for name, node in (status.get("nodes") or {}).items()
        if nodes is None or name in nodes
    }
    shown, hidden = _choose_workers(shown, max_rows)
    parts.append(_worker_table(shown, now))
    if hidden:
        parts.append(_line("", f"… {_count_hidden(hidden)} more", "dim"))
    return Group(*parts)


def print_status(
    console: Console, status: Json, now: float, *, nodes: frozenset[str] | None = None
) -> None:
    """Everything; on a terminal what is wrong stands at the end once more when the table has pushed it off."""
    with console.capture() as captured:
        console.print(render_status(status, now, nodes=nodes))
    text = clip_lines(captured.get())
    typer.echo(text)
    if not console.is_terminal or is_healthy(status) or text.count("\n") < console.height - 1:
        return
    attempt = (status.get("config") or {}).get("last_attempt") or {}
    problems = _problem_lines(attempt.get("problems") or []) if _is_refused(attempt) else []
    console.print(Group(Text(""), *_health_lines(status), *problems))


def fit_status(
    console: Console, status: Json, now: float, *, nodes: frozenset[str] | None = None
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


def _choose_workers(nodes: Json, max_rows: int | None) -> tuple[Json, list[Json]]:
    """The nodes with as many workers as fit, and the workers that do not."""
    workers = [
        (name, worker) for name, node in nodes.items() for worker in node.get("workers") or ()
    ]
    if max_rows is None or len(workers) <= max_rows:
        return nodes, []
    workers.sort(key=lambda item: item[1].get("phase") == "running")
    chosen: Json = {name: [] for name, _ in workers[:max_rows]}
    for name, worker in workers[:max_rows]:
        chosen[name].append(worker)
    shown = {name: {"workers": chosen[name]} for name in nodes if name in chosen}
    return shown, [worker for _, worker in workers[max_rows:]]


def _count_hidden(hidden: list[Json]) -> str:
    running = sum(1 for worker in hidden if worker.get("phase") == "running")
    if running == len(hidden):
        return f"{running} running"
    return f"{running} running and {len(hidden) - running} not running"


def say_override(override: Json) -> str:
    """One worker that is not as the config says."""
    words = "beside" if override.get("action") == "started" else "against"
    return (
        f"{escape_line(str(override.get('worker')))} {override.get('action')} {words} the config"
        f" by {escape_line(str(override.get('by')))}"
    )


def is_healthy(status: Json) -> bool:
    """The daemon's own judgement; a daemon that gives none is judged by what must never be."""
    if "healthy" in status:
        return bool(status["healthy"])
    attempt = (status.get("config") or {}).get("last_attempt") or {}
    workers = [w for node in (status.get("nodes") or {}).values() for w in node.get("workers", ())]
    return (
        bool((status.get("broker") or {}).get("connected"))
        and attempt.get("result") != "refused"
        and all(worker.get("phase") in ("running", "starting", "draining") for worker in workers)
    )


def _health_lines(status: Json) -> list[Text]:
    reasons = [_line("", reason, "yellow") for reason in status.get("degraded_by") or ()]
    return [_header(status), *reasons]


def _is_refused(attempt: Json) -> bool:
    return attempt.get("result") in ("refused", "reverted")


def _header(status: Json) -> Text:
    healthy = is_healthy(status)
    words = "stopping" if status.get("stopping") else "healthy" if healthy else "degraded"
    text = Text("● ", style="green" if healthy else "yellow")
    text.append(words, style="bold green" if healthy else "bold yellow")
    text.append(f"   generation {status.get('generation', 0)}")
    text.append(
        f"   appliance {_say(status.get('version'))}   pid {_say(status.get('pid'))}", "dim"
    )
    return text


def _line(name: str, value: str, style: str = "") -> Text:
    text = Text(f"{name:9s}", style="dim")
    text.append(escape_line(value), style=style)
    return text


def _config_lines(status: Json, now: float) -> list[Text]:
    config = status.get("config") or {}
    digest = str(config.get("digest") or "none")
    words = [digest[: 7 + 12] if digest.startswith("sha256:") else digest[:12]]
    if config.get("revision"):
        words.append(say_commit(config))
    words.append(f"applied {say_ago(config.get('applied_at'), now)}")
    words.append(" ".join(map(str, config.get("paths") or ())))
    lines = [_line("config", "   ".join(filter(None, words)))]
    pinned, on_trial = config.get("pinned"), config.get("on_trial")
    if pinned:
        why = "rolled back" if pinned.get("reason") == "rollback" else "went back after a trial"
        by = f" by {pinned['by']}" if pinned.get("by") else ""
        said = f"pinned: {why} {say_ago(pinned.get('since'), now)}{by}, until the files change"
        lines.append(_line("", said, "yellow"))
    if on_trial:
        left = round(float(on_trial.get("ends_in_seconds") or 0))
        lines.append(_line("", f"on trial for another {left} s", "cyan"))
    attempt = config.get("last_attempt") or {}
    if not attempt:
        return lines
    trigger = f" ({attempt['trigger']})" if attempt.get("trigger") else ""
    said = f"last look {say_ago(attempt.get('at'), now)}: {attempt.get('result')}{trigger}"
    lines.append(_line("", said, "red" if _is_refused(attempt) else "dim"))
    return lines + _problem_lines(attempt.get("problems") or [])


def _problem_lines(problems: list[Json]) -> list[Text]:
    """Errors first; what does not fit is counted, warnings apart from errors."""
    errors, warnings = split_problems(problems)
    lines = [
        _line("", f"  {_say_problem(item)}", "yellow" if is_warning(item) else "red")
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


def _say_problem(problem: Json) -> str:
    place = str(problem.get("file") or "")
    if place and problem.get("line"):
        place += f":{problem['line']}:{problem.get('column') or 1}"
    words = (problem.get("code"), place, problem.get("message"))
    return " ".join(str(word) for word in words if word)


def _broker_line(status: Json) -> Text:
    broker = status.get("broker") or {}
    connected = bool(broker.get("connected"))
    words = "connected to" if connected else "NOT connected to"
    embedded = " (embedded)" if broker.get("embedded") else ""
    reconnects = broker.get("reconnects") or 0
    again = f", {reconnects} reconnect{'s' if reconnects != 1 else ''}" if reconnects else ""
    said = f"{words} {broker.get('server') or 'any server'}{embedded}{again}"
    return _line("broker", said, "" if connected else "bold red")


def _method_lines(status: Json) -> list[Text]:
    """Methods that the config declares; those of the program are always there."""
    own = [item for item in status.get("methods") or () if item.get("source") == "config"]
    if not own:
        return []
    names = [f"{item.get('name')} {item.get('usage') or ''}".strip() for item in own[:MAX_METHODS]]
    more = f", and {len(own) - MAX_METHODS} more" if len(own) > MAX_METHODS else ""
    return [_line("methods", f"{', '.join(names)}{more}")]


def _outbox_line(status: Json) -> Text:
    outbox = status.get("outbox") or {}
    pending, dead = outbox.get("pending", 0), outbox.get("dead", 0)
    said = f"{pending} pending, {outbox.get('in_flight', 0)} in flight, {dead} dead"
    if pending:
        said += f", oldest waits {say_span(float(outbox.get('oldest_seconds') or 0))}"
    waiting = {why: count for why, count in (status.get("waiting") or {}).items() if count}
    if waiting:
        said += "; waiting: " + ", ".join(f"{count} {why}" for why, count in waiting.items())
    return _line("outbox", said, "yellow" if dead else "")


def _store_lines(status: Json) -> list[Text]:
    """The inbox where something is in it, and the store where it has something to say."""
    lines = []
    inbox, store = status.get("inbox") or {}, status.get("store") or {}
    unfinished, orphaned = inbox.get("unfinished") or 0, inbox.get("orphaned") or 0
    if unfinished:
        said = f"{unfinished} unfinished"
        said += f", {orphaned} of them without a worker" if orphaned else ""
        lines.append(_line("inbox", said, "yellow" if orphaned else ""))
    state, text = store.get("state") or "ok", store.get("text")
    if state != "ok" or text:
        said = f"{state}: {text}" if text else state
        lines.append(_line("store", said, "yellow" if state == "ok" else "bold red"))
    return lines


def _input_lines(status: Json) -> list[Text]:
    """Steward's inputs that are open, one line each."""
    lines = []
    for name, opened in (status.get("inputs") or {}).items():
        said = f"{name} {opened.get('path') or opened.get('listen')}"
        said += f"   {opened.get('accepted', 0)} accepted, {opened.get('refused', 0)} refused"
        if opened.get("waiting"):
            said += f", {opened['waiting']} files wait"
        error = opened.get("error")
        lines.append(_line("input", f"{said}: {error}" if error else said, "red" if error else ""))
    return lines


def _worker_table(nodes: Json, now: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("NODE", no_wrap=True)
    table.add_column("WORKER", overflow="fold")
    table.add_column("KIND", no_wrap=True)
    table.add_column("PHASE", no_wrap=True)
    for name in ("IN FLIGHT", "DONE", "FAILED"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("SINCE", justify="right", no_wrap=True)
    workers = [worker for node in nodes.values() for worker in node.get("workers") or ()]
    if any(_say_trouble(worker) for worker in workers):
        table.add_column("LAST ERROR", overflow="fold", max_width=60)
    is_long = len(workers) > MAX_ROWS
    for name, node in nodes.items():
        _add_node(table, name, node, now, is_long=is_long)
    return table


def _add_node(table: Table, name: str, node: Json, now: float, *, is_long: bool) -> None:
    workers = list(node.get("workers") or ())
    title = Text(escape_line(name), style="bold")
    if is_long:
        running = [worker for worker in workers if worker.get("phase") == "running"]
        workers = [worker for worker in workers if worker.get("phase") != "running"]
        if running:
            handled = sum(int(worker.get("handled") or 0) for worker in running)
            in_flight = sum(int(worker.get("in_flight") or 0) for worker in running)
            failed = sum(int(worker.get("failed") or 0) for worker in running)
            said = f"{len(running)} workers"
            table.add_row(
                title, said, "", _phase("running"), str(in_flight), str(handled), _failed(failed)
            )
            title = Text("")
    if not workers and not is_long:
        table.add_row(title, Text("no workers", style="dim"))
    for worker in workers:
        table.add_row(title, *_worker_cells(worker, name, now))
        title = Text("")


def _worker_cells(worker: Json, node: str, now: float) -> list[RenderableType]:
    subject = str(worker.get("subject") or worker.get("name") or "")
    said = _say_trouble(worker)
    since = say_ago(worker.get("since"), now).removesuffix(" ago")
    is_current = worker.get("phase") != "running"
    return [
        Text(escape_line(subject)),
        Text(str(worker.get("kind") or ""), style="dim"),
        _phase(str(worker.get("phase") or "")),
        str(worker.get("in_flight") or 0),
        str(worker.get("handled") or 0),
        _failed(int(worker.get("failed") or 0)),
        Text(since, style="dim"),
        *([Text(said, style="red" if is_current else "dim")] if said else ()),
    ]


def _say_trouble(worker: Json) -> str:
    """The last error of a worker and how often it was started again."""
    error, restarts = worker.get("last_error"), worker.get("restarts") or 0
    said = escape_line(str(error)) if error else ""
    if restarts:
        said = f"{said} ({restarts} restart{'s' if restarts != 1 else ''})".strip()
    return said


def _phase(phase: str) -> Text:
    return Text(escape_line(phase), style=_PHASE_STYLES.get(phase, ""))


def _failed(count: int) -> Text:
    return Text(str(count), style="red" if count else "")


def _say(value: object) -> str:
    return escape_line(str(value)) if value is not None else "?"
