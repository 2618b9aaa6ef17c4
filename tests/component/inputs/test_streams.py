"""The unix socket and the TCP listener as `nc` sees them, and as an attacker does."""

import asyncio
import json
import stat
import time

import pytest

from appliance.api.limits import MAX_FAILED_LOGINS
from appliance.core.specs import ListenInput, SecretRef, SocketInput
from appliance.errors import DaemonError, StoreFull
from appliance.inputs import stream
from tests.support.waiting import pace_async, turns, until_async

PING = b'[{"toNode": "ship1", "method": "REQPing"}]'
TCP = ListenInput(listen="127.0.0.1:0")


async def open_to(bench, name):
    if name == "socket":
        return await asyncio.open_unix_connection(bench.inputs.status()["socket"].path)
    return await asyncio.open_connection(*bench.address("tcp"))


async def ask(bench, name, *pieces, half_close=True):
    """What is answered to these pieces, each sent by itself."""
    reader, writer = await open_to(bench, name)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await turns()
    if half_close:
        writer.write_eof()
    async with asyncio.timeout(60):
        raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    return json.loads(raw)


@pytest.fixture(params=["socket", "tcp"])
async def name(request, bench):
    await bench.set(**{request.param: TCP if request.param == "tcp" else SocketInput()})
    return request.param


async def test_a_list_is_taken_and_its_ids_told_as_numbers_and_as_text(bench, name):
    answer = await ask(bench, name, PING)
    ((accepted,),) = [answer["accepted"]]
    assert (accepted["index"], accepted["to"], accepted["from"]) == (0, "ship1", "central")
    assert accepted["id_text"] == str(accepted["id"])
    assert (answer["problems"], answer["warnings"]) == ([], [])
    assert [request.method for request in bench.submitted] == ["REQPing"]


async def test_a_text_that_arrives_in_many_pieces_is_one(bench, name):
    pieces = [bytes([byte]) for byte in PING]
    assert (await ask(bench, name, *pieces))["accepted"]


async def test_a_closed_json_list_is_taken_although_the_client_waits_for_its_answer(bench, name):
    assert (await ask(bench, name, PING + b"\n", half_close=False))["accepted"]


async def test_a_text_that_goes_on_after_its_list_is_refused(bench, name):
    answer = await ask(bench, name, PING, b" garbage")
    assert answer["accepted"] == []
    assert "goes on" in answer["problems"][0]["message"]


async def test_yaml_is_taken_and_one_bad_element_leaves_the_others(bench, name):
    answer = await ask(
        bench, name, b"- {toNode: ship1, method: REQPing}\n- {toNodes: [nowhere, ship2], method: m}\n- 5\n"
    )  # fmt: skip
    assert [item["to"] for item in answer["accepted"]] == ["ship1", "ship2"]
    assert [(note["index"], note.get("to")) for note in answer["problems"]] == [
        (2, None),
        (1, "nowhere"),
    ]


async def test_an_atomic_list_is_taken_whole_or_not_at_all(bench, name):
    await bench.set(atomic=True)
    for text in (PING[:-1] + b", 5]", b'[{"toNodes": ["ship1", "nowhere"], "method": "m"}]'):
        answer = await ask(bench, name, text)
        assert answer["accepted"] == []
        assert answer["problems"]
    assert len((await ask(bench, name, PING))["accepted"]) == 1


async def test_yaml_without_an_end_is_not_taken_after_a_silence(bench, name):
    await bench.set(idle_timeout_s=0.05)
    answer = await ask(bench, name, b"- {toNode: ship1, method: REQPing}\n", half_close=False)
    assert "nc -N" in answer["problems"][0]["message"]
    assert bench.submitted == []


async def test_half_a_json_list_is_not_taken_after_a_silence(bench, name):
    await bench.set(idle_timeout_s=0.05)
    answer = await ask(bench, name, PING[:-1], half_close=False)
    assert answer["problems"]
    assert bench.submitted == []


async def test_one_who_sends_a_byte_now_and_then_is_cut_off_in_time(bench, name, monkeypatch):
    await bench.set(timeout_s=0.2)
    reader, writer = await open_to(bench, name)
    stopped = asyncio.Event()

    async def drip():
        while not stopped.is_set():
            writer.write(b" ")
            await pace_async(time.monotonic() + 0.01)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(60):
        answer = json.loads(await reader.readline())
    stopped.set()
    await dripping
    writer.close()
    assert "200ms" in answer["problems"][0]["message"]


async def test_a_text_beyond_the_bound_is_answered_although_the_client_still_sends(bench, name):
    await bench.set(max_bytes=2_000)
    answer = await ask(bench, name, *[b" " * 1_000] * 300)
    assert "2000 bytes" in answer["problems"][0]["message"]


async def test_connections_beyond_the_bound_are_told_and_the_others_go_on(bench, name):
    await bench.set(max_connections=1)
    reader, writer = await open_to(bench, name)
    writer.write(PING[:5])
    await writer.drain()
    await until_async(lambda: bench.inputs.status()[name].connections == 1)
    answer = await ask(bench, name, PING)
    assert "too many" in answer["problems"][0]["message"]
    writer.write(PING[5:])
    writer.write_eof()
    assert json.loads(await reader.read())["accepted"]
    writer.close()


async def test_clients_that_vanish_leave_nothing_behind(bench, name):
    for text in (b"", PING[:5], PING):
        _, writer = await open_to(bench, name)
        writer.write(text)
        writer.transport.abort()
    await until_async(lambda: bench.inputs.status()[name].connections == 0)
    assert (await ask(bench, name, PING))["accepted"]


async def test_a_full_store_is_told_as_try_later(bench, name):
    bench.control.raises = StoreFull("no room")
    answer = await ask(bench, name, PING)
    assert answer["accepted"] == []
    assert "later" in answer["problems"][0]["message"]


async def test_a_bug_below_ends_the_connection_and_not_the_input(bench, name, caplog):
    bench.control.raises = RuntimeError("a bug")
    reader, writer = await open_to(bench, name)
    writer.write(PING)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    bench.control.raises = None
    assert (await ask(bench, name, PING))["accepted"]


async def test_before_and_after_the_daemon_works_texts_are_put_off(bench, name):
    bench.inputs.importer.opened.clear()
    assert "later" in (await ask(bench, name, PING))["problems"][0]["message"]


async def test_counts_tell_accepted_and_refused_messages(bench, name):
    await ask(bench, name, PING[:-1] + b", {}, 5]")
    await ask(bench, name, b"nonsense: [")
    assert bench.inputs.totals()[name, "accepted"] == 1
    assert bench.inputs.totals()[name, "refused"] == 3
    assert bench.inputs.status()[name].refused == 3


# the unix socket


@pytest.mark.parametrize("mode", ["0660", "0600", "666"])
async def test_the_socket_has_the_rights_of_the_config_and_changes_them_in_place(bench, mode):
    await bench.set(socket=SocketInput(mode=mode))
    path = bench.directory / "steward.sock"
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    inode = path.stat().st_ino
    await bench.set(socket=SocketInput(mode="0640"))
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (inode, 0o640)


async def test_the_socket_moves_and_goes_with_the_config(bench):
    await bench.set(socket=SocketInput())
    await bench.set(socket=SocketInput(path=str(bench.directory / "other.sock")))
    assert (await ask(bench, "socket", PING))["accepted"]
    await bench.set(socket=None)
    await bench.inputs.close()
    assert list(bench.directory.iterdir()) == []


async def test_a_socket_that_cannot_be_made_changes_nothing(bench):
    await bench.set(socket=SocketInput())
    for path in ("missing/x.sock", "file"):
        (bench.directory / "file").write_text("precious")
        with pytest.raises(DaemonError):
            await bench.set(socket=SocketInput(path=path))
    assert (await ask(bench, "socket", PING))["accepted"]
    assert (bench.directory / "file").read_text() == "precious"


# TCP


@pytest.fixture
async def guarded(bench, short_dir):
    (short_dir / "token").write_text("open sesame\n")
    ref = SecretRef(kind="file", name=str(short_dir / "token"))
    await bench.set(tcp=ListenInput(listen="127.0.0.1:0", token=ref), idle_timeout_s=0.5)
    return bench


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_a_token_travels_in_the_first_line(guarded, end):
    line = b"authorization: bearer open sesame" + end
    assert (await ask(guarded, "tcp", line + PING))["accepted"]
    assert (await ask(guarded, "tcp", *[bytes([byte]) for byte in line], PING))["accepted"]
    assert (await ask(guarded, "tcp", line + PING, half_close=False))["accepted"]


@pytest.mark.parametrize(
    "begin",
    [b"", b"Authorization: Bearer wrong\n", b"Authorization: Basic open sesame\n",
     b"Authorization: Bearer\n", b"open sesame\n", b"\n",
     b"Authorization: Bearer \xff\xfe\n", b"x" * 20_000],
)  # fmt: skip
async def test_without_the_token_nothing_is_read(guarded, begin):
    answer = await ask(guarded, "tcp", begin + PING)
    assert answer["accepted"] == []
    assert "token" in answer["problems"][0]["message"]
    assert guarded.submitted == []


async def test_the_token_is_not_guessed(guarded):
    for number in range(MAX_FAILED_LOGINS):
        answer = await ask(guarded, "tcp", b"Authorization: Bearer %d\n" % number + PING)
        assert "a token is needed" in answer["problems"][0]["message"]
    # a right one is told no earlier
    for token in (b"one more", b"open sesame"):
        answer = await ask(guarded, "tcp", b"Authorization: Bearer " + token + b"\n" + PING)
        assert "too many failed logins" in answer["problems"][0]["message"]
    assert guarded.submitted == []


async def test_a_stranger_who_stays_silent_is_cut_off(guarded):
    answer = await ask(guarded, "tcp", b"Authorization", half_close=False)
    assert answer["problems"]


async def test_a_token_that_is_changed_holds_from_the_next_connection_on(guarded, short_dir):
    (short_dir / "token").write_text("another")
    assert not (await ask(guarded, "tcp", b"Authorization: Bearer open sesame\n" + PING))[
        "accepted"
    ]
    assert (await ask(guarded, "tcp", b"Authorization: Bearer another\n" + PING))["accepted"]
    (short_dir / "token").unlink()
    answer = await ask(guarded, "tcp", b"Authorization: Bearer another\n" + PING)
    assert "cannot read" in answer["problems"][0]["message"]


async def test_a_first_line_with_a_token_does_no_harm_where_none_is_asked(bench):
    await bench.set(tcp=TCP)
    assert (await ask(bench, "tcp", b"Authorization: Bearer x\n" + PING))["accepted"]


async def test_a_page_in_a_browser_cannot_post_to_the_tcp_input(bench):
    await bench.set(tcp=TCP)
    request = b"POST /: HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n" + PING
    answer = await ask(bench, "tcp", request)
    assert answer["accepted"] == []
    assert "HTTP" in answer["problems"][0]["message"]


async def test_a_listener_moves_without_a_moment_of_deafness(bench):
    await bench.set(tcp=TCP)
    old = bench.address("tcp")
    reader, writer = await open_to(bench, "tcp")
    writer.write(PING[:7])
    await writer.drain()
    await until_async(lambda: bench.inputs.status()["tcp"].connections == 1)
    await bench.set(tcp=ListenInput(listen="localhost:0"))
    assert bench.address("tcp") != old
    assert (await ask(bench, "tcp", PING))["accepted"]
    writer.write(PING[7:])
    writer.write_eof()
    assert json.loads(await reader.read())["accepted"]
    writer.close()


async def test_the_same_port_on_a_wider_address_is_taken_over(bench, short_dir):
    (short_dir / "token").write_text("t")
    await bench.set(tcp=TCP)
    port = bench.address("tcp")[1]
    token = SecretRef(kind="file", name=str(short_dir / "token"))
    await bench.set(tcp=ListenInput(listen=f"0.0.0.0:{port}", token=token))
    assert bench.inputs.status()["tcp"].listen == f"0.0.0.0:{port}"
    assert not (await ask(bench, "tcp", PING))["accepted"]


async def test_two_listeners_swap_their_ports(bench):
    await bench.set(tcp=TCP, http=TCP)
    tcp, http = bench.address("tcp")[1], bench.address("http")[1]
    await bench.set(
        tcp=ListenInput(listen=f"127.0.0.1:{http}"), http=ListenInput(listen=f"127.0.0.1:{tcp}")
    )
    assert (bench.address("tcp")[1], bench.address("http")[1]) == (http, tcp)
    assert (await ask(bench, "tcp", PING))["accepted"]


async def test_a_set_that_is_given_up_leaves_everything_as_it_was(bench):
    await bench.set(tcp=TCP, socket=SocketInput(mode="0600"))
    port = bench.address("tcp")[1]
    new = type(bench.inputs.settings.value)(
        tcp=ListenInput(listen=f"0.0.0.0:{port}"),
        http=TCP,
        socket=SocketInput(mode="0666"),
    )
    staged = await bench.inputs.stage(new)
    await staged.abandon()
    assert bench.address("tcp") == ("127.0.0.1", port)
    assert (await ask(bench, "tcp", PING))["accepted"]
    assert stat.S_IMODE((bench.directory / "steward.sock").stat().st_mode) == 0o600
    assert set(bench.inputs.status()) == {"tcp", "socket"}


async def test_an_address_in_use_refuses_the_set_and_opens_nothing_of_it(bench):
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    await bench.set(tcp=TCP)
    before = bench.address("tcp")
    with pytest.raises(DaemonError, match="in use"):
        await bench.set(
            socket=SocketInput(),
            tcp=ListenInput(listen="localhost:0"),
            http=ListenInput(listen=f"127.0.0.1:{port}"),
        )
    assert bench.address("tcp") == before
    assert (await ask(bench, "tcp", PING))["accepted"]
    assert not (bench.directory / "steward.sock").exists()
    taken.close()


async def test_a_token_that_cannot_be_read_refuses_the_set(bench):
    with pytest.raises(DaemonError, match="token"):
        await bench.set(
            tcp=ListenInput(listen="127.0.0.1:0", token=SecretRef(kind="env", name="NO_SUCH"))
        )
    assert bench.inputs.status() == {}


def test_the_quiet_moment_is_shorter_than_any_patience():
    assert stream.QUIET_S < 1.0
