"""`exec`: runs a program on nodes as ssh does, output and exit status included."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from typer.core import TyperCommand

from appliance.api.model import Line, Messages
from appliance.cli.answer_view import Answers, Style
from appliance.cli.api_client import Answer, ApiClient
from appliance.cli.choosing import (
    ABSENT_GRACE_S,
    INTERRUPTED_WORD,
    TARGETS_HELP,
    AbsentOption,
    BatchOption,
    DryRunOption,
    ExcludeOption,
    GroupOption,
    MaxFailOption,
    RawOption,
    Rollout,
    choose_nodes,
    show_dry_run,
    tell_choice,
    waits_for_absent,
)
from appliance.cli.following import (
    follow,
    show_kept,
    tell_jobs,
    tell_silence,
    tell_summary,
    tell_troubles,
    terminal_streams,
    write,
)
from appliance.cli.job_commands import cancel_job, print_words
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    read_duration,
    warn,
)
from appliance.cli.server_options import connect, daemon_words
from appliance.cli.standard_streams import end_with_reader
from appliance.core.command_options import (
    MAX_STDIN_BYTES,
    MAX_VARIABLES,
    NO_OPTIONS,
    VARIABLE,
    CommandOptions,
    join_options,
)
from appliance.core.message import bytes_to_text
from appliance.errors import DaemonUnreachable

PROGRAM_KEY = "appliance.program"
DEFAULT_WAIT_S = 60.0
DELIVERY_WAIT_S = 30.0
"""What delivery may take beside the time that the command has."""
INTERRUPTED = 130

_HELP = """Run a program on one or more nodes and show what it writes.

With one node, its stdout and stderr come out as they are and the exit status is the program's own.
With several, each line is put behind the node's name. Nothing is filed anywhere.

No shell is between: the program gets the words after -- as they are. Which programs a node runs is
its `allow_commands` (REQCliCommand, with --stream REQCliCommandCont).

\b
NODE is one of these; several are joined, and what is left out goes last:
  ship1           a node             'ship*'     nodes by name, * and ?
  @ROLE           nodes of a role    LABEL=VALUE nodes with a label
  all             all of the config  '!TARGET'   not these (or -x TARGET)
The shell wants * and ! in quotes. The daemon goes by the config in force.

With --batch so many nodes are asked at a time, and with --max-fail no more once too many failed or
gave no answer in --wait; those where nobody is there do not count.

\b
Exit status, one node:
  0-255  the program's own: 124 its time was over, 126 not executable, 127 no such
         program, 128+N ended by signal N
Several nodes:
  0 all ended with 0, 1 some failed or were not asked any more, 3 some were silent
Our own, told from the program's by a line on stderr that begins with "appliance:":
  1 refused, not sent, output cut, or the node does not tell the program's exit status (Go nodes;
  --accept-unknown), 3 no answer in time, 64 wrong use or no such node, 69 no daemon, 130 interrupted

With -i the program reads what comes on standard input here, up to 512 KiB, the same on every node; without it
nothing is read, so that a loop (`while read node; do appliance exec "$node" -- uptime; done`) keeps its lines. --user,
--cwd and --env are as the node's allow_users, allow_directories and allow_environment let them. A node that knows none
of these (a Go node, an earlier version) does not run the command, which has failed then.

What a silent node has not taken stays in the outbox and is run when the node is back; the line on
stderr says how to forget it. Of several nodes those where nobody is there are not waited for
(--wait-for-absent). What comes later is kept with the job (`jobs`).

Ctrl-C ends the waiting: a command that was taken runs on; with --stream it ends with its next
output, as with a closed pipe. A second Ctrl-C within three seconds cancels the job: what waits is
taken back, what runs is ended.

\b
Examples:
  appliance exec ship1 -- uptime
  appliance exec ship1 ship2 -- systemctl status nginx
  appliance exec @edge -x site=oslo --group -- df -h /
  appliance exec all --batch 10% --max-fail 2 -- systemctl restart nginx
  appliance exec ship1 -- journalctl -n 100 > ship1.log
  appliance exec ship1 --stream --timeout 1h -- ping -c 100 ship2
  appliance exec ship1 ship2 --detach --expires 2h -- apt-get update
  gzip -dc dump.gz | appliance exec -i ship1 --user postgres -- psql app
"""


class _ExecCommand(TyperCommand):
    """Takes what stands behind ``--`` away before options and nodes are read.

    The context is click's, which typer brings along or imports, depending on its version.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[PROGRAM_KEY] = args[at + 1 :]
            args = args[:at]
        elif args and not {"-h", "--help"} & set(args):
            raise typer.BadParameter(
                "say where the program begins: appliance exec NODE… -- PROGRAM [ARG…]", ctx=ctx
            )
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "PROGRAM", "[ARG…]"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("exec", cls=_ExecCommand, help=_HELP, no_args_is_help=True)(execute)


def execute(
    context: typer.Context,
    nodes: Annotated[
        list[str], typer.Argument(metavar="NODE", help=f"Where to run it. {TARGETS_HELP}")
    ],
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The node that asks.")
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="TIME", help="How long it may run. Default: the node's."),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="TIME",
            help="How long to wait for the answer. Default: --timeout and 30s more, else 60s, or as long as"
            " the config lets the program run.",
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show output while the program runs.")
    ] = False,
    accept_unknown: Annotated[
        bool,
        typer.Option(
            "--accept-unknown",
            help="Take it for 0 where a node does not tell the exit status, as Go nodes do not.",
        ),
    ] = False,
    with_stdin: Annotated[
        bool, typer.Option("-i", "--stdin", help="Give the program what is read here, to its end.")
    ] = False,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The user to run it as there.")
    ] = None,
    cwd: Annotated[
        str | None, typer.Option("--cwd", metavar="DIR", help="The directory to run it in there.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="A variable for it; may be repeated."),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Print the job's id and end; `jobs watch` shows the rest."),
    ] = False,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="What is not taken by then is not run."),
    ] = None,
    now: Annotated[
        bool,
        typer.Option("--now", help="Only on nodes that are there: for the others nothing waits."),
    ] = False,
    no_prefix: Annotated[
        bool, typer.Option("--no-prefix", help="With several nodes: lines without the node's name.")
    ] = False,
    exclude: ExcludeOption = None,
    dry_run: DryRunOption = False,
    batch: BatchOption = None,
    max_fail: MaxFailOption = None,
    wait_for_absent: AbsentOption = None,
    group: GroupOption = False,
    raw: RawOption = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Send the command and wait."""
    program: list[str] = context.meta.get(PROGRAM_KEY, [])
    if not program:
        raise typer.BadParameter("name a program after --", param_hint="PROGRAM")
    timeout_s = read_duration("--timeout", timeout)
    wait_s = read_duration("--wait", wait)
    # nobody said how long: as long as the node gives the program
    grace_s = DELIVERY_WAIT_S if wait_s is None and timeout_s is None else None
    if wait_s is None:
        wait_s = DEFAULT_WAIT_S if timeout_s is None else timeout_s + DELIVERY_WAIT_S
    given = CommandOptions(with_stdin, user or "", _read_directory(cwd), _read_variables(env))
    method = "REQCliCommandCont" if stream else "REQCliCommand"
    client = connect(state_dir)
    chosen = choose_nodes(
        client, nodes, exclude or (), method=method, from_node=from_node, always_asks=dry_run
    )
    rollout = Rollout.plan(chosen.names, batch, max_fail)
    if dry_run:
        show_dry_run(chosen, rollout, method, program, as_json=output is Output.JSON)
        return Exit.OK
    tell_choice(chosen)
    body = {
        "method": method,
        "method_args": join_options(given, program),
        "data": [_read_stdin()] if with_stdin else None,
        "from_node": from_node,
        "method_timeout": timeout_s,
        "expires": read_duration("--expires", expires),
    }
    body = {name: value for name, value in body.items() if value is not None}
    count = len(chosen.names)
    absent_s = ABSENT_GRACE_S if not waits_for_absent(wait_for_absent, count) else None
    style = Style(
        prefixes=count > 1 and not no_prefix,
        in_lines=count > 1,
        escapes=frozenset() if raw else terminal_streams(),
        keeps=group or output is Output.JSON,
        streams=stream,
        for_appliances=given != NO_OPTIONS,
        wants_status=not accept_unknown,
        tells_absence=absent_s is None,
    )
    answers = Answers(style)
    job = {"job": "exec"}
    job |= {} if accept_unknown else {"wants_status": "true"}
    job |= {"now": "true"} if now else {}
    if detach:
        if len(rollout.batches) > 1:
            raise typer.BadParameter(
                "batches are waited for: not with --batch", param_hint="--detach"
            )
        return _detach(client, {"to_nodes": chosen.names, **body}, job, answers, output)
    options = daemon_words(state_dir)
    interrupts = Interrupts()

    def ask(names: list[str]) -> str:
        asked, part = {"to_nodes": names, **body}, {**job, **rollout.part_of(answers)}
        # a program whose output nobody sees any more ends as with a closed pipe
        reader = end_with_reader() if stream else contextlib.nullcontext()
        with reader, interrupts.heard(lambda: _tell_second(answers, options)):
            is_whole = follow(
                client, asked, wait_s, answers, absent_s=absent_s, job=part, grace_s=grace_s
            )
        return "" if is_whole else INTERRUPTED_WORD

    try:
        rollout.run(ask, answers)
    except DaemonUnreachable:
        # before somebody asks for the same once more
        tell_jobs(answers, options)
        raise
    finally:
        # also of a daemon that went away: what had come until then is known
        if answers.nodes:
            show_kept(answers, output, groups=group, raw=raw)
    tell_troubles(answers)
    if interrupts.is_second:
        for name in jobs_under_way(answers):
            print_words(cancel_job(client, name), Output.TEXT, is_result=False)
        return INTERRUPTED
    tell_silence(answers, "the command", in_pieces=stream, options=options)
    tell_jobs(answers, options)
    tell_summary(answers)
    if answers.is_interrupted:
        return INTERRUPTED
    if len(answers.silent) > len(answers.absent) or (answers.silent and absent_s is None):
        # of a Go node no output of a program that goes on is waited for longer than that can go on
        is_early = stream and all(item.is_go_node for item in answers.silent)
        how_long = f"within {wait_s:g} s" if grace_s is None and not is_early else "in time"
        warn(f"no answer {how_long} (--wait)")
    return exit_code_of(answers)


def _tell_second(answers: Answers, options: str) -> bool:
    jobs = jobs_under_way(answers)
    for job in jobs:
        cancel = f"appliance jobs cancel{options} {job}"
        warn(f"job {job}: Ctrl-C again cancels it; else it goes on ({cancel})")
    return bool(jobs)


def jobs_under_way(answers: Answers) -> list[str]:
    """What may still do something, a batch among it of which the daemon has not said yet that it took it."""
    is_asking = answers.batch > 1 and answers.first_job is not None
    begun = [answers.first_job] if is_asking and answers.first_job is not None else []
    return answers.jobs_to_come or begun


def _detach(
    client: ApiClient,
    body: Mapping[str, Any],
    job: Mapping[str, str],
    answers: Answers,
    output: Output,
) -> int:
    """Have it accepted, and say as what."""
    asked = {**body, "for_caller": True}
    place = f"/api/v1/messages?{urlencode(job)}"
    answer = client.post(place, Messages, asked, accept=[422])
    for item, facts in zip(answer.value.messages, answer.plain.get("messages", ()), strict=True):
        kind = "accepted" if item.accepted else "rejected"
        line = Answer.of(Line, {"event": kind, "reason": item.error, **facts})
        write(answers.take(line.value))
    tell_troubles(answers)
    if output is Output.JSON:
        print_json(answers.facts())
    else:
        for name in answers.jobs_to_come:
            typer.echo(name)
    return Exit.FAILED if answers.failed else Exit.OK


def _read_stdin() -> str:
    """All of it. Raises BadParameter where it is more than a message should carry."""
    try:
        raw = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read standard input: {error.strerror or error}", param_hint="--stdin"
        ) from None
    if len(raw) > MAX_STDIN_BYTES:
        raise typer.BadParameter(
            f"standard input holds more than {MAX_STDIN_BYTES} bytes; copy it to the node"
            " (appliance cp) and have the program read the file",
            param_hint="--stdin",
        )
    return bytes_to_text(raw)


def _read_directory(text: str | None) -> str:
    if text and (not text.startswith("/") or ".." in text.split("/")):
        raise typer.BadParameter("an absolute path without `..`", param_hint="--cwd")
    return text or ""


def _read_variables(texts: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not VARIABLE.fullmatch(name):
            raise typer.BadParameter(
                f"{name!r}: write NAME=VALUE, the name of letters, digits and '_'",
                param_hint="--env",
            )
        found[name] = value
    if len(found) > MAX_VARIABLES:
        raise typer.BadParameter(f"more than {MAX_VARIABLES} variables", param_hint="--env")
    return found


def exit_code_of(answers: Answers) -> int:
    """With one node the program's own status; with several what became of all of them."""
    if len(answers.nodes) == 1:
        (item,) = answers.nodes
        is_whole = not (item.progress.is_cut or item.progress.is_truncated or answers.lost_events)
        if item.progress.exit_status is not None and (item.progress.exit_status or is_whole):
            return min(item.progress.exit_status, 255)
    if answers.failed or answers.not_asked or answers.lost_events:
        return Exit.FAILED
    return Exit.SILENT if answers.silent else Exit.OK


# Ctrl-C of a command that waits for others: the first tells how to end what they do, a second does it.

WINDOW_S = 3.0
"""How long after the first a second one counts; then the waiting ends, and nothing else."""


class Interrupts:
    """What was pressed while the block of `heard` ran. Both ways end with a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_second = False
        """Whether whoever waits wants the work ended, too."""
        self._count = 0

    @contextlib.contextmanager
    def heard(self, tell: Callable[[], bool]) -> Iterator[None]:
        """`tell` says what a second Ctrl-C does, and whether it does anything: else the first one ends the waiting."""

        def on_interrupt(_number: int, _frame: object) -> None:
            self._count += 1
            self.is_second = self._count > 1
            if self.is_second or not tell():
                raise KeyboardInterrupt
            signal.setitimer(signal.ITIMER_REAL, WINDOW_S)

        def on_time(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield  # ignored, as in the background of a shell, or somebody else's
            return
        before = signal.signal(signal.SIGALRM, on_time)
        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGALRM, before)
