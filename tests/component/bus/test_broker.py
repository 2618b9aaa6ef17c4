"""The embedded broker lives and dies with the daemon, comes back when it dies, and ends nothing that is not ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from appliance.bus import broker as broker_module
from appliance.bus.broker import EmbeddedBroker, find_binary
from appliance.bus.nats import NatsBus
from appliance.core.specs import AuthSettings, SecretRef
from appliance.errors import BusUnavailable
from tests.support.nats_login import make_nkey
from tests.support.waiting import pace_async, until_async

from .conftest import Heard, Inbox, OpenBus, make_settings


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    running = EmbeddedBroker(tmp_path / "broker")
    await running.start()
    yield running
    await running.stop()


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(held, gone.set)
    try:
        async with asyncio.timeout(60):
            await gone.wait()
    finally:
        loop.remove_reader(held)
        os.close(held)


def start_python(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def list_processes(text: str) -> list[str]:
    """Processes of this machine whose arguments hold `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:
            continue
        if text.encode() in arguments and is_alive(int(path.parent.name)):
            found.append(arguments.decode())
    return found


async def test_it_carries_messages_on_loopback_from_a_private_directory(
    broker: EmbeddedBroker, tmp_path: Path, open_bus: OpenBus
) -> None:
    bus = await open_bus(broker.url, require_connection=True)
    assert bus.max_payload == 1_048_576
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    await bus.publish("a", b"")
    await inbox.wait_for(1)
    assert broker.url == f"nats://127.0.0.1:{broker.port}"
    assert stat.S_IMODE((tmp_path / "broker").stat().st_mode) == 0o700
    sockets = Path(f"/proc/{broker.pid}/net/tcp").read_text()
    assert f"0100007F:{broker.port:04X} 00000000:0000 0A" in sockets
    assert f"00000000:{broker.port:04X} 00000000:0000 0A" not in sockets


async def test_it_comes_back_on_the_same_port_when_it_dies(
    broker: EmbeddedBroker, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(broker.url, events=heard.make_events())
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    port, pid = broker.port, broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await heard.until(lambda it: "reconnect" in it.calls)
    assert (broker.port, broker.restarts) == (port, 1)
    assert broker.pid != pid
    await bus.publish("a", b"")
    await inbox.wait_for(1)


async def test_one_that_does_not_come_back_is_told_once_and_not_with_every_try(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    directory = tmp_path / "broker"
    broker = EmbeddedBroker(directory, report=told.append)
    await broker.start()
    try:
        pid = broker.pid
        assert pid is not None
        shutil.rmtree(directory)
        directory.write_text("in its way")
        os.kill(pid, signal.SIGKILL)
        await until_async(lambda: broker.restarts >= 4)
    finally:
        await broker.stop()
    assert len(told) == 2, told
    assert "ended with" in told[0]


async def test_stop_ends_the_process_and_leaves_no_marks(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    pid = broker.pid
    assert pid is not None
    await broker.stop()
    assert not is_alive(pid)
    assert broker.pid is None
    names = {path.name for path in (tmp_path / "broker").iterdir()}
    assert names == {"nats-server.conf", "nats-server.log"}
    await broker.stop()


async def test_one_that_ignores_term_is_killed(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_TERM_GRACE_S", 0.1)
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await broker.stop()
    assert not is_alive(pid)


async def test_it_dies_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    parent = start_python("-m", "tests.component.bus.broker_parent", str(tmp_path))
    assert parent.stdout is not None
    pid = int(parent.stdout.readline().split()[0])
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    await until_gone(pid)


async def test_a_left_over_of_ours_is_ended_before_the_start(tmp_path: Path) -> None:
    directory = tmp_path / "broker"
    first = EmbeddedBroker(directory)
    await first.start()
    pid = first.pid
    assert pid is not None
    # What a killed daemon leaves where the kernel could not help: the supervisor is gone, the process is not.
    assert first._supervisor is not None
    first._supervisor.cancel()
    second = EmbeddedBroker(directory)
    await second.start()
    await until_gone(pid)
    assert second.pid not in {None, pid}
    await second.stop()
    await first.stop()


async def test_a_process_that_only_has_the_number_of_the_pid_file_is_left_alone(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "broker"
    directory.mkdir()
    stranger = start_python("-c", "input()")
    try:
        for text in (str(stranger.pid), "nonsense", "-1", "0", "99999999999"):
            (directory / "nats-server.pid").write_text(text)
            broker = EmbeddedBroker(directory)
            await broker.start()
            await broker.stop()
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


async def test_a_taken_port_is_an_error_with_the_brokers_words(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    other = EmbeddedBroker(tmp_path / "other", broker.port)
    with pytest.raises(BusUnavailable, match="address already in use"):
        await other.start()
    assert other.pid is None


async def test_one_that_finds_no_room_is_tried_again_and_reached_where_it_was_said_to_be(
    tmp_path: Path, open_bus: OpenBus
) -> None:
    told: list[str] = []
    made: list[bool] = []
    blocking = tmp_path / "nats-server.pid"
    (blocking / "x").mkdir(parents=True)
    broker = EmbeddedBroker(
        tmp_path, report=told.append, before_first=lambda: made.append(blocking.exists())
    )
    try:
        await broker.start(insist=False)
        url = broker.url
        assert broker.port
        assert broker.trouble is not None
        assert "Could not write pidfile" in broker.trouble
        assert told == [broker.trouble]
        bus = await open_bus(url)
        assert not bus.is_connected
        (blocking / "x").rmdir()
        blocking.rmdir()
        await until_async(lambda: bus.is_connected)
        assert (broker.url, broker.trouble, made) == (url, None, [True])
    finally:
        await broker.stop()


async def test_one_whose_port_is_another_brokers_does_not_wait_for_it(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    other = EmbeddedBroker(tmp_path / "other", broker.port)
    with pytest.raises(BusUnavailable, match="address already in use"):
        await other.start(insist=False)


async def test_without_a_binary_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_DISTRIBUTION", "no-such-distribution")
    monkeypatch.setattr(broker_module, "_BINARY", "no-such-binary")
    with pytest.raises(BusUnavailable, match=r"steward-appliance\[broker\]"):
        await EmbeddedBroker(tmp_path).start()


async def test_a_binary_on_the_path_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nats-server").symlink_to(find_binary())
    monkeypatch.setattr(broker_module, "_DISTRIBUTION", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(tmp_path / "nats-server")


async def test_an_unusable_directory_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BusUnavailable, match="unusable"):
        await EmbeddedBroker(tmp_path / "file" / "broker").start()


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    for late_ms in range(0, 40, 4):
        broker = EmbeddedBroker(tmp_path)
        starting = asyncio.create_task(broker.start())
        await pace_async(time.monotonic() + late_ms / 1000)
        starting.cancel()
        await asyncio.wait({starting})
        await broker.stop()
    assert list_processes(str(tmp_path)) == []


def users(key: str, *subjects: str) -> str:
    """A part of the configuration: one key that may these subjects."""
    allowed = ", ".join(subjects)
    return f"authorization {{users: [{{nkey: {key}, permissions: {{publish: [{allowed}]}}}}]}}"


async def test_its_users_change_while_their_connections_go_on(
    tmp_path: Path, open_bus: OpenBus
) -> None:
    key = make_nkey()
    seed_file = tmp_path / "seed"
    seed_file.write_text(key.seed)
    auth = AuthSettings(nkey_seed=SecretRef(kind="file", name=str(seed_file)))
    running = EmbeddedBroker(tmp_path / "broker", users=users(key.public, "a"))
    await running.start()
    try:
        heard = Heard()
        bus = await NatsBus.open(
            make_settings(running.url, auth=auth), name="test", events=heard.make_events()
        )
        inbox = Inbox()
        await bus.subscribe("b", inbox)
        await bus.publish("b", b"denied")
        await heard.until(lambda it: any('"b"' in error for error in it.errors))
        await running.admit(users(key.public, "a", "b"))
        await bus.publish("b", b"allowed")
        await inbox.wait_for(1)
        assert [message.payload for message in inbox.messages] == [b"allowed"]
        assert "disconnected" not in heard.calls
        pid = running.pid
        assert pid is not None
        # one that takes its place lets in the same
        os.kill(pid, signal.SIGKILL)
        await heard.until(lambda it: "reconnect" in it.calls)
        await bus.publish("b", b"again")
        await inbox.wait_for(2)
        with pytest.raises(BusUnavailable, match="refuses its users"):
            await running.admit("authorization {users: nonsense")
        await running.admit(users(make_nkey().public, "a"))
        await heard.until(lambda it: it.calls.count("disconnected") == 2)
        await bus.close()
    finally:
        await running.stop()


def test_it_works_on_uvloop(tmp_path: Path) -> None:
    async def run() -> None:
        broker = EmbeddedBroker(tmp_path)
        await broker.start()
        heard = Heard()
        bus = await NatsBus.open(make_settings(broker.url), name="test", events=heard.make_events())
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await heard.until(lambda it: "reconnect" in it.calls)
        await bus.close()
        await broker.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
