"""Listeners come, go and move while the daemon runs; a socket of the dead is taken over, one of the living is not."""

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from appliance.api import server as server_module
from appliance.api import unix_socket
from appliance.api.server import AdminServer
from appliance.api.unix_socket import (
    MAX_ADDRESS_BYTES,
    connect_unix,
    find_listening,
    listen_unix,
)
from appliance.cli import api_client
from appliance.cli.api_client import SOCKET_NAME, UnixWay
from appliance.core.specs import AdminSettings, SecretRef
from appliance.errors import DaemonAlreadyRunning, DaemonError
from tests.support.fake_control import FakeControl
from tests.support.waiting import until_async


async def is_served(address):
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{address[0]}:{address[1]}/livez") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False


async def test_the_socket_is_for_owner_and_group(server, short_dir):
    await server.start_unix(short_dir / "appliance.sock")
    assert stat.S_IMODE((short_dir / "appliance.sock").stat().st_mode) == 0o660


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o660), (0o007, 0o660), (0o077, 0o600)])
def test_an_umask_that_keeps_the_group_out_is_respected(short_dir, umask, mode):
    before = os.umask(umask)
    try:
        listen_unix(short_dir / "a.sock").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((short_dir / "a.sock").stat().st_mode) == mode


async def test_a_socket_left_by_a_dead_daemon_is_taken_over(server, short_dir):
    listen_unix(short_dir / "appliance.sock").close()
    await server.start_unix(short_dir / "appliance.sock")
    connect_unix(short_dir / "appliance.sock", 1.0).close()


async def test_a_socket_that_is_answered_is_left_alone(server, short_dir):
    path = short_dir / "appliance.sock"
    await server.start_unix(path)
    inode = path.stat().st_ino
    second = AdminServer(FakeControl())
    with pytest.raises(DaemonAlreadyRunning):
        await second.start_unix(path)
    await second.close()
    assert path.stat().st_ino == inode
    assert os.listdir(short_dir) == ["appliance.sock"]


async def test_what_is_no_socket_is_not_removed(server, short_dir):
    (short_dir / "appliance.sock").write_text("precious")
    with pytest.raises(DaemonError):
        await server.start_unix(short_dir / "appliance.sock")
    assert (short_dir / "appliance.sock").read_text() == "precious"


async def test_a_missing_directory_is_a_clear_error(server, short_dir):
    with pytest.raises(DaemonError, match="No such file"):
        await server.start_unix(short_dir / "missing" / "appliance.sock")


async def test_a_path_longer_than_a_socket_address_works(server, short_dir):
    directory = short_dir.joinpath(*["d" * 60] * 4)
    directory.mkdir(parents=True)
    path = directory / "appliance.sock"
    assert len(str(path)) > MAX_ADDRESS_BYTES
    await server.start_unix(path)
    with await asyncio.to_thread(connect_unix, path, 1.0) as connection:
        assert connection.getpeername()
    await server.close()
    assert not path.exists()


async def test_closing_removes_the_own_socket_and_no_other(short_dir):
    path = short_dir / "appliance.sock"
    server = AdminServer(FakeControl())
    await server.start_unix(path)
    path.unlink()
    successor = listen_unix(path)
    await server.close()
    assert path.exists()
    successor.close()


async def test_tcp_comes_moves_and_goes(server):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    first = server.tcp_address
    assert await is_served(first)
    await server.move_tcp(AdminSettings(listen="localhost:0"))
    assert await is_served(server.tcp_address)
    assert not await is_served(first)
    second = server.tcp_address
    await server.move_tcp(AdminSettings())
    assert server.tcp_address is None
    assert not await is_served(second)


async def test_a_taken_address_changes_nothing(server):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    before = server.tcp_address
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = f"127.0.0.1:{busy.getsockname()[1]}"
        with pytest.raises(DaemonError, match=f"{taken}: address already in use"):
            await server.move_tcp(AdminSettings(listen=taken))
    assert server.tcp_address == before
    assert await is_served(before)


async def test_the_same_port_on_a_wider_address_can_be_taken_over(server):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    port = server.tcp_address[1]
    await server.move_tcp(AdminSettings(listen=f"0.0.0.0:{port}"))
    assert server.tcp_address == ("0.0.0.0", port)
    assert await is_served(("127.0.0.1", port))
    with pytest.raises(DaemonError):
        await server.move_tcp(AdminSettings(listen=f"192.0.2.1:{port}"))
    assert await is_served(("127.0.0.1", port))


@pytest.mark.parametrize(
    "listen", ["nonsense", "127.0.0.1:http", "127.0.0.1:70000", "no.such.host.invalid:0"]
)
async def test_an_unusable_address_is_a_clear_error(server, listen):
    with pytest.raises(DaemonError, match=listen):
        await server.move_tcp(AdminSettings(listen=listen))


async def test_an_unreadable_token_changes_nothing(server):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    before = server.tcp_address
    token = SecretRef(kind="file", name="/nonexistent/token")
    with pytest.raises(DaemonError, match=r"admin\.token"):
        await server.move_tcp(AdminSettings(listen="127.0.0.1:1", token=token))
    assert server.tcp_address == before


async def test_a_connection_that_says_nothing_is_closed(server, monkeypatch):
    monkeypatch.setattr(server_module, "IDLE_TIMEOUT_S", 0.05)
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    for begin in (b"", b"GET /livez HTTP/1.1\r\nHost: loc"):
        reader, writer = await asyncio.open_connection(*server.tcp_address)
        writer.write(begin)
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_is_answered_and_does_not_fill_the_log(server, caplog, request_):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    reader, writer = await asyncio.open_connection(*server.tcp_address)
    writer.write(request_)
    async with asyncio.timeout(60):
        assert b" 400 " in await reader.readline()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert caplog.records == []


async def test_connections_over_tcp_are_bounded_and_the_unix_socket_stays_free(
    server, short_dir, monkeypatch
):
    monkeypatch.setattr(server_module, "MAX_TCP_CONNECTIONS", 3)
    await server.start_unix(short_dir / "appliance.sock")
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    writers = [(await asyncio.open_connection(*server.tcp_address))[1] for _ in range(3)]
    assert not await is_served(server.tcp_address)
    connector = aiohttp.UnixConnector(str(short_dir / "appliance.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://localhost/livez") as answer,
    ):
        assert answer.status == 200
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(60):
        while not await is_served(server.tcp_address):
            pass


@pytest.mark.parametrize("kind", ["TCP", "UNIX"])
async def test_one_client_takes_at_most_half_of_the_connections(
    server, short_dir, monkeypatch, kind
):
    monkeypatch.setattr(server_module, f"MAX_{kind}_CONNECTIONS", 4)
    path = short_dir / "appliance.sock"
    await server.start_unix(path)
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))

    async def connect():
        if kind == "TCP":
            return await asyncio.open_connection(*server.tcp_address)
        return await asyncio.open_unix_connection(path)

    held = [await connect() for _ in range(2)]
    reader, writer = await connect()
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    for _, each in [*held, (reader, writer)]:
        each.close()
        await each.wait_closed()


async def test_of_a_connection_over_tcp_that_takes_nothing_the_kernel_is_told(server):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    _, writer = await asyncio.open_connection(*server.tcp_address)
    await until_async(lambda: server._tcp._open)
    (protocol,) = server._tcp._open
    accepted = protocol.transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(accepted.fileno())) as own:
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("is_relative", [False, True])
def test_who_asks_where_nobody_answers_hears_where_daemons_of_this_machine_are(
    short_dir, is_relative, monkeypatch
):
    state = short_dir / "other"
    state.mkdir()
    monkeypatch.chdir(short_dir)
    monkeypatch.setattr(api_client, "MAX_OTHERS", 1_000)
    way = UnixWay(short_dir / "mine")
    listener = listen_unix(Path("other" if is_relative else state) / SOCKET_NAME)
    with listener:
        assert state in find_listening(SOCKET_NAME)
        told = str(way.explain(FileNotFoundError(2, "")))
        assert told.startswith(f"no daemon answers on {short_dir}/mine/appliance.sock; there ")
        assert f"--state-dir {state}" in told
        # who asks that one is not sent there
        assert f"--state-dir {state}" not in str(UnixWay(state).explain(ConnectionRefusedError()))
    assert state not in find_listening(SOCKET_NAME)
    monkeypatch.setattr(unix_socket, "find_listening", lambda _name: [])
    assert str(way.explain(FileNotFoundError(2, ""))).endswith(
        "; start it (appliance run), or name its --state-dir"
    )
