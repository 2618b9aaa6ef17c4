"""REQToSocket against real sockets with listeners of every temper."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from appliance.errors import ArgumentsInvalid, HandlerError, PathForbidden


@pytest.fixture
def send(bench, tmp_path):
    bench.spec_fields["allow_paths"] = (f"{tmp_path}/*",)

    async def send(path, *data):
        return await bench.handle("REQToSocket", method_args=(str(path),), data=data or ("x",))

    return send


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen(1)
        yield listener


async def receive(listener):
    def read():
        connection, _ = listener.accept()
        with connection:
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    return await asyncio.to_thread(read)


async def test_all_data_arrives_as_the_bytes_that_were_sent_and_then_the_end(
    send, listener, tmp_path
):
    received = asyncio.create_task(receive(listener))
    result = await send(tmp_path / "sock", "one\n", "two \udcff\0", "x" * 1_000_000)
    assert result.output is None
    assert await received == b"one\ntwo \xff\0" + b"x" * 1_000_000


async def test_each_message_has_a_connection_of_its_own(send, listener, tmp_path):
    for text in ("one", "two"):
        received = asyncio.create_task(receive(listener))
        await send(tmp_path / "sock", text)
        assert await received == text.encode()


async def test_a_path_longer_than_an_address_may_be_is_no_trouble(send, bench, listener, tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    os.link(tmp_path / "sock", deep / "sock")
    bench.spec_fields["allow_paths"] = (f"{tmp_path}/**",)
    received = asyncio.create_task(receive(listener))
    await send(deep / "sock", "far")
    assert await received == b"far"


async def test_a_listener_who_does_not_read_is_left_in_time(send, bench, listener, tmp_path):
    bench.timeout_s = 0.2
    with pytest.raises(HandlerError, match=r"did not take 5000000 bytes within 0\.2 s"):
        await send(tmp_path / "sock", "x" * 5_000_000)


async def test_a_listener_who_takes_no_connection_is_left_in_time(send, bench, tmp_path, listener):
    bench.timeout_s = 0.2
    callers = []
    try:
        while True:  # until its queue is full
            caller = socket.socket(socket.AF_UNIX)
            callers.append(caller)
            caller.setblocking(False)
            try:
                caller.connect(str(tmp_path / "sock"))
            except BlockingIOError:
                break
        with pytest.raises(HandlerError, match="did not take"):
            await send(tmp_path / "sock")
    finally:
        for caller in callers:
            caller.close()


async def test_a_listener_who_hangs_up_is_an_error(send, listener, tmp_path):
    hanging_up = asyncio.create_task(asyncio.to_thread(lambda: listener.accept()[0].close()))
    with pytest.raises(HandlerError, match=r"(?i)pipe|reset"):
        await send(tmp_path / "sock", "x" * 5_000_000)
    await hanging_up


async def test_a_socket_without_a_listener_or_none_at_all_is_an_error(send, tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    with pytest.raises(HandlerError, match="nobody listens"):
        await send(tmp_path / "left")
    with pytest.raises(HandlerError, match="no such file"):
        await send(tmp_path / "none")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters:
        letters.bind(str(tmp_path / "letters"))
        with pytest.raises(HandlerError, match="wrong type"):
            await send(tmp_path / "letters")


@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
async def test_only_sockets_are_written_to(send, tmp_path, kind):
    path = tmp_path / kind
    {"file": path.touch, "directory": path.mkdir, "fifo": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(PathForbidden, match=r"is no socket|is a directory"):
        await send(path)
    if kind == "file":
        assert path.read_bytes() == b""


async def test_only_listed_sockets_are_written_to_wherever_links_lead(
    send, bench, listener, tmp_path
):
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "sock")
    bench.spec_fields["allow_paths"] = (f"{inside}/**",)
    for path in (tmp_path / "sock", inside / "link"):
        with pytest.raises(PathForbidden, match="not in allow_paths"):
            await send(path)


@pytest.mark.parametrize("arguments", [(), ("",), ("sock",), ("/a", "/b"), ("/a\0",)])
async def test_exactly_one_absolute_path_is_taken(send, bench, arguments):
    with pytest.raises(ArgumentsInvalid):
        await bench.handle("REQToSocket", method_args=arguments)


async def test_as_an_answer_it_takes_the_arguments_that_the_question_named(
    send, bench, listener, tmp_path
):
    """The asker's replyMethodArgs are the answer's methodArgs."""
    received = asyncio.create_task(receive(listener))
    await bench.handle(
        "REQToSocket",
        method_args=(str(tmp_path / "sock"),),
        data=("answer",),
        from_node="ship2",
        is_reply=True,
    )
    assert await received == b"answer"
