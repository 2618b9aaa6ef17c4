"""Whoever waits for what a daemon says can be interrupted at any moment, also at the one before a read."""

import contextlib
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from appliance.api.model import Line, Status
from appliance.cli import interruptible
from appliance.cli.api_client import ApiClient
from appliance.cli.remote_way import RemoteWay, Server, parse_server
from appliance.errors import DaemonUnreachable
from tests.support.authority import Authority
from tests.support.waiting import until

LONG_S = 30.0
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
FIRST = b'{"event": "accepted"}\n'


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def speaking(say, authority=None):
    """A server that has `say` speak to the first who asks, in a thread; the client that asks it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            if authority is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                pair = authority.issue("127.0.0.1")
                context.load_cert_chain(pair.cert, pair.key)
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                connection.recv(65_536)
                say(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        url = parse_server(f"{'https' if authority else 'http'}://127.0.0.1:{port}")
        server = Server(url=url, ca=authority and authority.pem)
        yield ApiClient(RemoteWay(server))
        thread.join(LONG_S)
        assert not thread.is_alive()


@contextlib.contextmanager
def interrupting():
    """Ctrl-C is heeded as at the start of a program, whatever another test has made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def is_asleep(thread_id):
    """Whether the kernel has the thread wait for something."""
    return Path(f"/proc/self/task/{thread_id}/stat").read_text().rsplit(") ", 1)[1][0] == "S"


@pytest.mark.parametrize("is_tls", [False, True])
def test_an_interrupt_that_comes_just_before_a_read_is_not_held_back(request, is_tls):
    reads, is_over = threading.Event(), threading.Event()
    main_id = threading.get_native_id()
    was_over = []

    def say(connection):
        connection.sendall(HEAD + b"%x\r\n%b\r\n" % (len(FIRST), FIRST))
        assert reads.wait(LONG_S)
        until(lambda: is_asleep(main_id), timeout_s=LONG_S)
        # noted by Python, and no call of the one who reads is ended by it: as one that comes just before the call
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        was_over.append(is_over.wait(LONG_S))

    def read_on():
        reads.set()
        return next(lines)

    authority = request.getfixturevalue("authority") if is_tls else None
    with interrupting(), speaking(say, authority) as client:
        lines = client.stream("/api/v1/messages", Line, [], {}, LONG_S)
        assert next(lines).value.event == "accepted"
        with pytest.raises(KeyboardInterrupt):
            read_on()
        is_over.set()
    assert was_over == [True]


def test_a_daemon_that_says_nothing_is_waited_for_as_long_as_was_said(monkeypatch):
    monkeypatch.setattr(interruptible, "SLICE_S", 0.01)
    is_over = threading.Event()
    with speaking(lambda _: is_over.wait(LONG_S)) as client:
        began_mono = time.monotonic()
        with pytest.raises(DaemonUnreachable, match="does not answer in time"):
            client.post("/api/v1/reload", Status, {}, timeout_s=0.1)
        assert time.monotonic() - began_mono >= 0.1
        is_over.set()


def test_what_comes_after_many_slices_is_read_whole(monkeypatch):
    monkeypatch.setattr(interruptible, "SLICE_S", 0.001)
    main_id = threading.get_native_id()
    body = b'{"event": "end"}\n'

    def say(connection):
        for piece in (HEAD, b"%x\r\n" % len(body), body[:7], body[7:] + b"\r\n0\r\n\r\n"):
            until(lambda: is_asleep(main_id), timeout_s=LONG_S)
            connection.sendall(piece)

    with speaking(say) as client:
        lines = list(client.stream("/api/v1/messages", Line, [], {}, LONG_S))
    assert [line.value.event for line in lines] == ["end"]
