"""A real runner process, asked over its socket as the daemon asks it."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import msgspec
import pytest

from appliance.core.command_options import CommandOptions
from appliance.core.message import Message
from appliance.errors import ArgumentsInvalid, CommandForbidden, DaemonError, HandlerError
from appliance.methods.declared.methods import make_user_method
from appliance.methods.programs.runner_client import Ended, Refused, run_remote, to_frame
from appliance.runner.server import MAX_ASKING, RunnerSettings, take_listener
from tests.component.methods.conftest import bench as bench
from tests.support import forked
from tests.support.config_files import desired_of
from tests.support.waiting import LONG_S, until, until_async, until_taken

pytestmark = pytest.mark.xdist_group("runner")  # they share one
ALLOWED = """
sh -c **
env
sleep *
"""


IMPATIENT = """
from appliance.runner import server as runner
runner.REQUEST_TIMEOUT_S = 2.0
"""


class RunnerProcess:
    """`appliance runner` with a list of its own."""

    def __init__(
        self, directory: Path, *options: str, text: str = ALLOWED, before: str = ""
    ) -> None:
        self.path = str(directory / "runner.sock")
        self.allow = directory / "runner.allow"
        self.allow.write_text(text)
        self.allow.chmod(0o644)
        self.log = directory / "log"
        with open(self.log, "wb") as log:
            self.process = forked.start(
                ["runner", "--allow", str(self.allow), "--socket", self.path, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "LD_LIBRARY_PATH": "/nonexistent", "SECRET": "x"},
                before=before,
            )

    def wait_ready(self) -> "RunnerProcess":
        until(self._is_listening, tell=self.log.read_text)
        return self

    def _is_listening(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
            except OSError:
                return False
        return True

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    process = RunnerProcess(tmp_path_factory.mktemp("r"), "--max-commands", "3").wait_ready()
    yield process
    assert process.stop() == 0


def run(runner, *argv: str, timeout_s: float = 10.0, **more):
    return run_remote(
        runner.path,
        [word.encode() for word in argv],
        environment=more.pop("environment", {}),
        timeout_s=timeout_s,
        max_output_bytes=more.pop("limit", 1_000),
        **more,
    )


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until_gone(pid: int) -> None:
    await until_async(lambda: not lives(pid))


async def test_output_and_status_come_back(runner):
    result = await run(runner, "sh", "-c", "printf out; printf err >&2; exit 3")
    assert (result.exit_status, result.stdout, result.stderr) == (3, b"out", b"err")
    missing = await run(runner, "sh", "-c", "exec /nonexistent")
    assert missing.exit_status == 127


async def test_output_beyond_the_limit_is_cut_there(runner):
    result = await run(runner, "sh", "-c", "yes | head -c 5000", limit=100)
    assert result.truncated
    assert len(result.stdout) < 200


async def test_command_that_the_list_does_not_cover_is_forbidden(runner):
    with pytest.raises(CommandForbidden, match="not in the runner's allow list"):
        await run(runner, "id")
    with pytest.raises(CommandForbidden):
        await run(runner, "sleep", "--help")  # `*` is no option


async def test_list_is_read_again_for_every_command_and_must_belong_to_its_owner_alone(runner):
    runner.allow.write_text(ALLOWED + "true\n")
    assert (await run(runner, "true")).exit_status == 0
    runner.allow.chmod(0o666)
    with pytest.raises(HandlerError, match="can be written by others"):
        await run(runner, "true")
    runner.allow.chmod(0o644)
    runner.allow.write_text("sh -c 'open")
    with pytest.raises(HandlerError, match="line 1: no closing quotation"):
        await run(runner, "true")
    runner.allow.write_text(ALLOWED)


async def test_environment_is_the_runners_own_with_the_messages_origin(runner):
    asked = {"LD_PRELOAD": "/evil.so", "PATH": "/evil", "APPLIANCE_FROM_NODE": "central"}
    text = (await run(runner, "env", environment=asked)).stdout.decode()
    assert "APPLIANCE_FROM_NODE=central" in text
    assert "PATH=/usr/local/sbin:" in text
    assert not any(word in text for word in ("evil", "SECRET", "LD_"))


async def test_time_that_is_over_kills_the_whole_group(runner):
    result = await run(runner, "sh", "-c", "sleep 60 & echo $!; wait", timeout_s=2.0)
    assert (result.timed_out, result.exit_status) == (True, 124)
    await until_gone(int(result.stdout))


async def test_asker_that_goes_takes_its_command_along(runner, tmp_path):
    mark = tmp_path / "pid"
    asking = asyncio.create_task(
        run(runner, "sh", "-c", f"echo $$ > {mark}.n; mv {mark}.n {mark}; sleep 60")
    )
    await until_async(mark.exists)
    asking.cancel()
    await asyncio.wait({asking})
    await until_gone(int(mark.read_text()))


async def test_no_more_commands_run_at_once_than_it_was_told(runner):
    asking = []
    for _ in range(3):
        runs = asyncio.Event()

        async def say(_data: bytes, _stream: str, runs: asyncio.Event = runs) -> None:
            runs.set()

        asking.append(
            asyncio.create_task(run(runner, "sh", "-c", "echo up; sleep 60", timeout_s=60, say=say))
        )
        async with asyncio.timeout(60):
            await runs.wait()
    with pytest.raises(HandlerError, match="3 commands run already"):
        await run(runner, "sh", "-c", "true")
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    # the places of those who went are free a moment later
    result = await until_taken(lambda: run(runner, "sh", "-c", "true"), HandlerError)
    assert result.exit_status == 0


async def test_no_more_run_at_once_when_many_ask_in_the_same_moment(runner, tmp_path):
    go = tmp_path / "go"
    refused = []

    async def ask() -> str:
        try:
            await run(
                runner, "sh", "-c", f"while [ ! -e {go} ]; do sleep 0.05; done", timeout_s=LONG_S
            )
        except HandlerError as error:
            refused.append(str(error))
            return "no"
        return "ran"

    asking = asyncio.gather(*(ask() for _ in range(12)))
    await until_async(lambda: len(refused) >= 9)
    go.touch()
    assert sorted(await asking) == ["no"] * 9 + ["ran"] * 3
    assert all("3 commands run already" in text for text in refused)


async def test_what_is_no_request_is_refused_and_harms_nobody(runner):
    for junk in (b"\xff" * 64, b"\x00\x00\x00\x04nope", b"\x00", b""):
        reader, writer = await asyncio.open_unix_connection(runner.path)
        writer.write(junk)
        writer.write_eof()
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()
    assert (await run(runner, "sh", "-c", "true")).exit_status == 0


def frame(**fields) -> bytes:
    body = msgspec.msgpack.encode({"type": "run", "environment": {}, "timeout_s": 10.0, **fields})
    return len(body).to_bytes(4) + body


async def ask(runner, raw: bytes, *fds: int) -> Ended | Refused:
    """What the runner answers to `raw`, sent as somebody would who has taken over the daemon."""

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(60)
            wire.connect(runner.path)
            rest = memoryview(raw)[socket.send_fds(wire, [raw], fds) if fds else 0 :]
            wire.sendall(rest)
            answer = b""
            while chunk := wire.recv(65_536):
                answer += chunk
            return answer

    answer = await asyncio.to_thread(talk)
    assert int.from_bytes(answer[:4]) == len(answer) - 4
    return msgspec.msgpack.decode(answer[4:], type=Ended | Refused)


SHOW = [b"sh", b"-c", b"pwd; umask; id -u; ls /proc/self/fd | wc -l; readlink /proc/self/exe; env"]


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"timeout_s": -1.0},
        {"timeout_s": "10"},
        {"argv": []},
        {"argv": "sh"},
        {"argv": ["sh"]},
        {"argv": [b""]},
        {"argv": [b"sh\0", b"-c", b"true"]},
        {"argv": [b"sh", b"-c", b"true\0"]},
        {"argv": [b"./sh", b"-c", b"true"]},
        {"argv": [b"/bin/sh", b"-c", b"true"]},
        {"argv": [b"SH", b"-c", b"true"]},
        {"argv": [b"sh", b"-ec", b"true"]},
        {"argv": [b"sh", *[b"-c"] * 20_000]},
        {"environment": {"STEWARD_DATA": "a\0b"}},
        {"environment": {str(number): "" for number in range(1_000)}},
        {"environment": {"STEWARD_DATA": 1}},
        {"max_output_bytes": -(2**62)},
        {"max_output_bytes": "many"},
        {"type": "said"},
    ],
    ids=lambda fields: "-".join(f"{name} {value!r:.20}" for name, value in fields.items()),
)
async def test_request_that_is_not_as_the_daemon_makes_it_runs_nothing(runner, tmp_path, fields):
    mark = tmp_path / "ran"
    answer = await ask(
        runner, frame(**{"argv": [b"sh", b"-c", f"touch {mark}".encode()], **fields})
    )
    assert isinstance(answer, Refused), answer
    assert not mark.exists()
    assert (await run(runner, "sh", "-c", "true")).exit_status == 0


async def test_nothing_but_what_is_asked_for_reaches_the_command(runner):
    plain = await ask(runner, frame(argv=SHOW, max_output_bytes=10_000))
    wished = await ask(
        runner,
        frame(
            argv=SHOW,
            max_output_bytes=10_000,
            cwd="/tmp",
            executable="/bin/false",
            user="nobody",
            umask=0,
            preexec_fn="x",
            stdin=b"x",
            environment={"LD_PRELOAD": "x", "PATH": "/evil", "HOME": "/evil", "BASH_ENV": "/x"},
        ),
    )
    assert plain.exit_status == 0
    assert wished == plain


async def test_descriptors_that_come_along_are_thrown_away(runner, tmp_path):
    held = Path(f"/proc/{runner.process.pid}/fd")
    await ask(runner, frame(argv=SHOW, max_output_bytes=1_000))
    before = len(os.listdir(held))
    with open(tmp_path / "secret", "w") as file:
        passed = [file.fileno()] * 50
        with_them = await ask(runner, frame(argv=SHOW, max_output_bytes=1_000), *passed)
        without = await ask(runner, frame(argv=SHOW, max_output_bytes=1_000))
    assert with_them == without
    await until_async(lambda: len(os.listdir(held)) <= before)


async def test_those_who_only_hold_the_line_are_few_and_hold_it_for_a_while(tmp_path):
    own = RunnerProcess(tmp_path, "--max-commands", "1", before=IMPATIENT)
    own.wait_ready()
    held = [await asyncio.open_unix_connection(own.path) for _ in range(100)]
    refused = 0
    async with asyncio.timeout(60):
        for reader, writer in held:
            answer = await reader.read()  # at once, or when nothing has come for too long
            refused += b"ask already" in answer
            writer.close()
    assert 100 - 1 - MAX_ASKING <= refused < 100
    assert (await run(own, "sh", "-c", "true")).exit_status == 0
    assert await asyncio.to_thread(own.stop) == 0


async def test_announced_giant_is_refused_before_it_comes(runner):
    answer = await ask(runner, (2**32 - 1).to_bytes(4) + b"x" * 1_000)
    assert isinstance(answer, Refused)
    assert "exceeds the limit" in answer.reason


async def test_stream_is_passed_on_while_it_runs_and_a_slow_listener_slows_it(runner):
    said = []
    first = asyncio.Event()

    async def say(data: bytes, stream: str) -> None:
        said.append((stream, data))
        first.set()

    argv = ("sh", "-c", 'echo one; echo two >&2; read x < "$0"; echo three')
    fifo = Path(runner.path).with_name("fifo")
    os.mkfifo(fifo)
    asking = asyncio.create_task(run(runner, *argv, str(fifo), say=say))
    async with asyncio.timeout(60):
        await first.wait()
    await asyncio.to_thread(fifo.write_text, "go\n")
    result = await asking
    assert result.exit_status == 0
    assert b"".join(data for stream, data in said if stream == "stdout") == b"one\nthree\n"
    assert b"".join(data for stream, data in said if stream == "stderr") == b"two\n"


async def test_failing_listener_ends_the_command(runner):
    pids = []

    async def say(data: bytes, stream: str) -> None:
        pids.append(int(data))
        raise HandlerError("nobody listens")

    with pytest.raises(HandlerError, match="nobody listens"):
        await run(runner, "sh", "-c", "echo $$; sleep 60", say=say)
    await until_gone(pids[0])


async def test_subscription_that_names_a_runner_has_its_commands_run_there(runner, bench):
    bench.spec_fields.update(runner=runner.path, allow_commands=None)
    for method in ("REQCliCommand", "REQCliCommandCont"):
        command = ("sh", "-c", "echo started by $PPID; exit 4")
        result = await bench.handle(method, method_args=command)
        text = bench.said() + (result.output or b"")
        assert b"started by %d\n" % runner.process.pid in text
        assert result.exit_status == 4
        with pytest.raises(CommandForbidden, match="the runner at"):
            await bench.handle(method, method_args=("id",))


async def test_data_that_is_not_utf_8_reaches_the_command(runner, bench):
    bench.spec_fields.update(runner=runner.path, allow_commands=None)
    command = ("sh", "-c", 'printf %s "{{STEWARD_DATA}}"; cat /dev/null')
    result = await bench.handle("REQCliCommand", method_args=command, data=("caf\udce9",))
    assert (result.output, result.exit_status) == (b"caf\xe9", 0)


DECLARED = """
version: 1
broker: {{embedded: true}}
nodes: {{ship1: {{subscribe: {{Mine: {{runner: {path}}}}}}}}}
methods: {{Mine: {{exec: [sh, -c, "cat; echo started by $PPID >&2"], stdin: "{{data}}"{more}}}}}
"""


async def test_declared_method_that_names_a_runner_runs_there(runner, bench, tmp_path):
    (spec,) = desired_of(tmp_path, DECLARED.format(path=runner.path, more="")).workers.values()
    message = Message(method="Mine", data=["hello"], from_node="central", to_node="ship1", id=7)
    bench.spec_fields.update(runner=spec.runner)
    result = await make_user_method(spec).make().handle(message, bench.context("Mine"))
    assert result.output == b"hello"
    assert result.stderr == b"started by %d\n" % runner.process.pid


async def test_a_runner_is_given_no_environment_of_the_config(runner, bench, tmp_path):
    # `check` refuses the two together; a set that an older version accepted is refused where it would run
    text = DECLARED.format(path=runner.path, more=", environment: {A: b}")
    text = text.replace(f"{{runner: {runner.path}}}", "{}")
    (spec,) = desired_of(tmp_path, text).workers.values()
    message = Message(method="Mine", data=["hello"], from_node="central", to_node="ship1", id=7)
    bench.spec_fields.update(runner=str(runner.path))
    with pytest.raises(ArgumentsInvalid, match="its own environment"):
        await make_user_method(spec).make().handle(message, bench.context("Mine"))


async def test_runner_that_is_not_there_is_named(tmp_path, runner):
    runner_path = str(tmp_path / "no.sock")
    with pytest.raises(HandlerError, match=r"no\.sock cannot be reached: No such file"):
        await run_remote(runner_path, [b"true"], environment={}, timeout_s=1.0)


async def test_other_users_are_turned_away(tmp_path):
    other = RunnerProcess(tmp_path, "--user", str(os.geteuid() + 12_345)).wait_ready()
    with pytest.raises(HandlerError, match="may not ask here"):
        await run(other, "env")
    assert other.stop() == 0


def test_who_is_turned_away_hears_why_however_late_he_asks(tmp_path):
    other = RunnerProcess(tmp_path, "--user", str(os.geteuid() + 12_345)).wait_ready()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(other.path))
        said = b"".join(iter(lambda: line.recv(4_096), b""))
        line.sendall(b"what it would have asked")  # a line that is gone would break here
    assert b"may not ask here" in said
    assert other.stop() == 0


async def test_stop_ends_what_runs(tmp_path):
    own = RunnerProcess(tmp_path).wait_ready()
    mark = tmp_path / "pid"
    asking = asyncio.create_task(
        run(own, "sh", "-c", f"echo $$ > {mark}.n; mv {mark}.n {mark}; sleep 60")
    )
    await until_async(mark.exists)
    assert await asyncio.to_thread(own.stop) == 0
    with pytest.raises(HandlerError, match="broke off"):
        await asking
    await until_gone(int(mark.read_text()))


def test_list_that_cannot_be_read_is_no_start(tmp_path):
    bad = RunnerProcess(tmp_path, text="sh -c 'open")
    assert bad.process.wait(60) == 78
    assert "line 1: no closing quotation" in bad.log.read_text()


def test_socket_of_the_service_manager_is_taken_only_when_it_is_meant_for_us(tmp_path):
    settings = RunnerSettings(allow_path=tmp_path, user_ids=frozenset())
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "7"}
    with pytest.raises(DaemonError, match="no socket"):
        take_listener(settings, environment, 8)
    assert environment == {}


def test_frame_begins_with_its_length():
    from appliance.methods.programs.runner_client import Said

    frame = to_frame(Said("stdout", b"x" * 10))
    assert int.from_bytes(frame[:4]) == len(frame) - 4


GIVING = f"""{ALLOWED}
cat
@user nobody
@directory /usr/**
@variable GREETING
"""


@pytest.fixture(scope="module")
def giving(tmp_path_factory):
    process = RunnerProcess(tmp_path_factory.mktemp("g"), text=GIVING).wait_ready()
    yield process
    assert process.stop() == 0


async def test_streamed_command_reads_what_it_was_given(giving):
    said = []

    async def say(data, _stream):
        said.append(data)

    await run(giving, "cat", stdin=b"a\0\xff", say=say)
    assert b"".join(said) == b"a\0\xff"


async def test_directory_variables_and_user_are_given_as_the_list_says(giving):
    options = CommandOptions(directory="/usr/lib", variables={"GREETING": "caf\udce9"})
    result = await run(giving, "sh", "-c", 'pwd; printf %s "$GREETING"', options=options)
    assert result.stdout == b"/usr/lib\ncaf\xe9"
    if os.geteuid() == 0:
        result = await run(giving, "sh", "-c", "id -un", options=CommandOptions(user="nobody"))
        assert result.stdout == b"nobody\n"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (CommandOptions(user="daemon"), "@user"),
        (CommandOptions(directory="/etc"), "@directory"),
        (CommandOptions(variables={"LD_PRELOAD": "x"}), "@variable"),
    ],
)
async def test_what_the_list_does_not_give_is_forbidden(giving, options, line):
    with pytest.raises(CommandForbidden, match=line):
        await run(giving, "sh", "-c", "true", options=options)


async def test_arguments_stand_in_no_line_of_the_log(runner):
    origin = {"APPLIANCE_FROM_NODE": "central", "APPLIANCE_MESSAGE_ID": "4711"}
    await run(runner, "sh", "-c", "exit 3", "Bearer-s3cret", environment=origin)
    with pytest.raises(CommandForbidden):
        await run(runner, "curl", "-H", "Bearer-s3cret", environment=origin)

    def both_told():
        text = runner.log.read_text()
        return "program=sh arguments=3" in text and "program=curl arguments=2" in text

    await until_async(both_told)
    text = runner.log.read_text()
    assert "message_id=4711" in text
    assert "s3cret" not in text
