"""The command runner against programs that will not behave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time

import pytest
import uvloop

from appliance.core.message import Message
from appliance.methods.programs import child as _child
from appliance.methods.programs.command import make_environment, run_command
from tests.support.waiting import until_async

ENVIRONMENT = {"PATH": os.environ["PATH"]}
LONG_ENOUGH_S = 1.5
"""For a program to begin and say its first word, also on a machine that does other things; then its time is over."""


async def run(
    *argv, timeout_s=10.0, max_output_bytes=100_000, environment=ENVIRONMENT, stop_grace_s=5.0
):
    return await run_command(
        [os.fsencode(argument) for argument in argv],
        environment=environment,
        timeout_s=timeout_s,
        max_output_bytes=max_output_bytes,
        stop_grace_s=stop_grace_s,
    )


async def sh(script, **options):
    return await run("sh", "-c", script, **options)


def children():
    """Ids of our children, zombies included."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        # a thread may end between the listing and the look
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/self/task/{task}/children") as file,
        ):
            found.update(file.read().split())
    return found


async def wait_until(condition):
    """Processes of others give no event to wait for: look again until it holds, and what it gave then."""
    return await until_async(condition)


def processes_of(marker):
    """Ids of live processes whose command line holds `marker`."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if name.isdigit() and marker.encode() in file.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


async def wait_until_gone(marker):
    await wait_until(lambda: not processes_of(marker))


@pytest.fixture(autouse=True)
def no_zombies_and_no_open_files():
    uvloop.new_event_loop().close()  # its first loop opens what stays open
    before = children()
    open_files = len(os.listdir("/proc/self/fd"))
    yield
    assert children() <= before
    assert len(os.listdir("/proc/self/fd")) <= open_files


@pytest.fixture(autouse=True, params=["pidfd", "thread"])
def exit_watch(request, monkeypatch):
    if request.param == "thread":

        def refuse(pid):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.fixture
def short_linger(monkeypatch):
    """For descendants of which nothing more is heard: how long they are listened to is no part of the promise."""
    monkeypatch.setattr(_child, "LINGER_S", 0.1)


async def test_output_error_output_and_status_come_apart():
    result = await sh("echo out; echo err >&2; exit 3")
    assert (result.exit_status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert not result.timed_out
    assert not result.truncated


async def test_arguments_reach_the_program_as_they_are():
    result = await run("printf", "%s|", "a b", "$HOME", "*", ";", "", "\udcff")
    assert result.stdout == b"a b|$HOME|*|;||\xff|"


async def test_standard_input_is_empty():
    assert (await run("cat")).stdout == b""


async def test_program_that_does_not_exist_is_127_and_one_that_cannot_run_126(tmp_path):
    missing = await run("/no/such/program")
    assert (missing.exit_status, missing.start_error) == (127, "No such file or directory")
    assert missing.stderr == b"/no/such/program: No such file or directory\n"
    (tmp_path / "plain").write_text("text")
    assert (await run(str(tmp_path / "plain"))).exit_status == 126
    assert (await run("echo", "x" * 3_000_000)).exit_status == 126


async def test_death_by_signal_counts_as_in_a_shell():
    assert (await sh("kill -9 $$")).exit_status == 128 + signal.SIGKILL


async def test_flood_is_stopped_in_time_and_kept_within_the_bound():
    started = time.monotonic()
    result = await run("yes", timeout_s=LONG_ENOUGH_S, max_output_bytes=1_000)
    assert time.monotonic() - started < 20
    assert result.timed_out
    assert result.truncated
    assert result.exit_status == 124
    assert result.stdout == b"y\n" * 500


async def test_program_that_talks_too_much_still_ends_in_its_own_way():
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 5"
    result = await sh(script, max_output_bytes=10)
    assert result.exit_status == 5
    assert result.stdout == bytes(10)
    assert result.stderr == result.stdout


async def test_output_of_exactly_the_bound_is_not_marked():
    result = await sh("printf 0123456789", max_output_bytes=10)
    assert (result.stdout, result.truncated) == (b"0123456789", False)


async def test_timeout_kills_the_whole_family_and_keeps_what_was_said():
    marker = f"31.{os.getpid()}"
    result = await sh(f"echo begun; sleep {marker} & sleep {marker}", timeout_s=LONG_ENOUGH_S)
    assert result.timed_out
    assert result.stdout == b"begun\n"
    await wait_until_gone(marker)


async def test_cancel_kills_the_whole_family_and_reaps():
    marker = f"32.{os.getpid()}"
    task = asyncio.create_task(sh(f"sleep {marker} & sleep {marker}"))
    await wait_until(lambda: len(processes_of(f"sleep\0{marker}")) == 2)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await wait_until_gone(marker)


async def test_grandchild_that_holds_the_pipe_delays_nothing_and_is_killed(short_linger):
    marker = f"33.{os.getpid()}"
    started = time.monotonic()
    result = await sh(f"sleep {marker} & echo hi")
    assert time.monotonic() - started < 20
    assert (result.exit_status, result.stdout, result.timed_out) == (0, b"hi\n", False)
    assert result.is_held
    await wait_until_gone(marker)


async def test_grandchild_in_a_session_of_its_own_delays_nothing(short_linger):
    marker = f"34.{os.getpid()}"
    started = time.monotonic()
    result = await sh(f"setsid sleep {marker} & echo hi", stop_grace_s=0.2)
    assert time.monotonic() - started < 20
    assert result.stdout == b"hi\n"
    for pid in processes_of(marker):
        os.kill(pid, signal.SIGKILL)
    await wait_until_gone(marker)


async def test_daemon_started_properly_survives_its_starter():
    marker = f"35.{os.getpid()}"
    await sh(f"nohup sleep {marker} >/dev/null 2>&1 &")
    # its shell does not wait until it has become what it was started for
    # by the same look: while it becomes that it has no name
    (pid,) = await wait_until(lambda: processes_of(f"sleep\0{marker}"))
    os.kill(pid, signal.SIGKILL)
    await wait_until_gone(marker)


async def test_who_was_killed_is_given_no_second_grace(short_linger):
    """A descendant in a session of its own holds the pipe for as long as it likes, whoever is killed."""
    marker = f"37.{os.getpid()}"
    child = _child.Child(
        [b"sh", b"-c", f"setsid sleep {marker} & echo hi".encode()],
        ENVIRONMENT,
        lambda loop, pipe_fd, _: _child.KeptPipe(loop, pipe_fd, 1_000),
        stop_grace_s=3_600.0,
    )
    await child.exited.wait()
    await wait_until(lambda: processes_of(f"sleep\0{marker}"))
    child.kill_group()
    async with asyncio.timeout(60):
        await child.end()
    for pid in processes_of(marker):
        os.kill(pid, signal.SIGKILL)
    await wait_until_gone(marker)


async def test_program_that_ignores_signals_is_killed_all_the_same():
    script = "trap '' TERM INT HUP; while :; do sleep 0.05; done"
    result = await sh(script, timeout_s=LONG_ENOUGH_S, stop_grace_s=0.2)
    assert (result.exit_status, result.signal, result.timed_out) == (124, signal.SIGKILL, True)


async def test_program_that_closes_its_outputs_is_still_waited_for():
    result = await sh("exec >&- 2>&-; sleep 0.2; exit 4")
    assert (result.exit_status, result.stdout) == (4, b"")


async def test_many_at_once_do_not_mix():
    results = await asyncio.gather(*(sh(f"echo {number}; exit {number}") for number in range(40)))
    assert [result.exit_status for result in results] == list(range(40))
    assert [result.stdout for result in results] == [b"%d\n" % number for number in range(40)]


async def test_child_sees_no_descriptor_of_ours():
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), False)
        code = "import os; print(sorted(os.listdir('/proc/self/fd')))"
        result = await run(sys.executable, "-c", code)
    assert result.stdout == b"['0', '1', '2', '3']\n"  # 3 is the listing itself


async def test_child_stuck_in_the_kernel_does_not_hold_us(monkeypatch):
    monkeypatch.setattr(_child, "KILL_WAIT_S", 0.05)
    killed = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: killed.append(pid))
    result = await run("sleep", "30", timeout_s=0.1, stop_grace_s=0.1)
    assert result.timed_out
    monkeypatch.undo()
    os.killpg(killed[0], signal.SIGKILL)
    # the runner reaps it by itself
    await wait_until(lambda: not os.path.exists(f"/proc/{killed[0]}"))


async def test_programs_get_the_usual_variables_and_none_that_nobody_handed_on():
    base = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "APPLIANCE_ADMIN": "x",
        "NKEY_SEED": "x",
        "DATABASE_URL": "postgres://u:p@h",
        "MYSQL_PWD": "x",
        "GITHUB_PAT": "x",
        "HTTPS_PROXY": "http://u:p@h",
        "LD_PRELOAD": "x.so",
        "CREDENTIALS_DIRECTORY": "/run/x",
        "NOTIFY_SOCKET": "/run/systemd/notify",
    }
    environment = make_environment(base, Message(id=9, from_node="central"))
    assert environment == {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "APPLIANCE_MESSAGE_ID": "9",
        "APPLIANCE_FROM_NODE": "central",
    }
    result = await run("/usr/bin/env", environment=environment)
    assert b"APPLIANCE_MESSAGE_ID=9\n" in result.stdout


def test_variables_handed_on_by_hand_pass_save_those_that_are_the_daemons_own():
    base = {"JAVA_HOME": "/jre", "BROKER": "s3cret", "NOTIFY_SOCKET": "/run/systemd/notify"}
    message = Message(id=9, from_node="central")
    environment = make_environment(base, message, passed=tuple(base), hidden={"BROKER"})
    assert environment.keys() - {"APPLIANCE_MESSAGE_ID", "APPLIANCE_FROM_NODE"} == {"JAVA_HOME"}


def test_runner_behaves_the_same_on_the_loop_the_daemon_uses():
    async def main():
        marker = f"36.{os.getpid()}"
        results = await asyncio.gather(
            sh("echo hi; exit 2"),
            sh(f"sleep {marker} & echo hi"),
            run("yes", timeout_s=0.2, max_output_bytes=10),
        )
        await wait_until_gone(marker)
        return [(result.exit_status, result.timed_out) for result in results]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [(2, False), (0, False), (124, True)]


async def test_program_whose_time_is_over_may_tidy_up_and_what_it_says_then_is_heard(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()
    result = await sh(
        f"trap 'rm {lock}; echo tidy; exit 9' TERM; echo begun; sleep 60 & wait",
        timeout_s=LONG_ENOUGH_S,
    )
    assert not lock.exists()
    assert result.stdout == b"begun\ntidy\n"
    assert (result.exit_status, result.timed_out) == (124, True)


async def test_cancelled_program_may_tidy_up_too(tmp_path):
    lock, ready = tmp_path / "lock", tmp_path / "ready"
    lock.touch()
    task = asyncio.create_task(sh(f"trap 'rm {lock}; exit' TERM; touch {ready}; sleep 60 & wait"))
    await wait_until(ready.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lock.exists()


async def test_output_of_a_helper_that_goes_on_after_the_program_is_waited_for():
    script = "exec > >(while read -r l; do sleep 0.1; echo $l; done); seq 6"
    result = await run("bash", "-c", script)
    assert result.stdout.split() == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert not result.is_held


async def test_the_signal_that_ended_a_program_is_told():
    result = await sh("kill -USR1 $$")
    assert (result.signal, result.exit_status) == (signal.SIGUSR1, 128 + signal.SIGUSR1)
