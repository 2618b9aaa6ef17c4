"""What the command line says of a server that is not what it should be: one line, by which one knows what to do."""

import contextlib
import re
import socket
import ssl
import threading

import pytest

from appliance.api.model import Status
from appliance.cli import remote_way
from appliance.cli.api_client import ApiClient, NotKnownThere, NotPermitted
from appliance.cli.remote_way import RemoteWay, Server, ServerInvalid, parse_server
from appliance.errors import DaemonUnreachable
from tests.support.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def serving(answer, pair=None):
    """A server that says this to whoever asks, and ends; the port it listens on."""
    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    connection.recv(65_536)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def respond(status, body, kind="application/json", more=""):
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return (head + body).encode()


def ask(url, **more):
    client = ApiClient(RemoteWay(Server(url=parse_server(url), **more)))
    return client.get("/api/v1/status", Status)


@pytest.mark.parametrize(
    ("cn", "san", "days", "says"),
    [
        ("ship1", "DNS:ship1.example", 30, "is for another name than 127.0.0.1"),
        ("ship1", "IP:127.0.0.1", -1, "has expired"),
    ],
)
def test_a_certificate_that_does_not_hold_is_told_with_why(authority, cn, san, days, says):
    with serving(b"", authority.issue(cn, san, days)) as port:
        url = f"https://127.0.0.1:{port}"
        with pytest.raises(DaemonUnreachable, match=f"the certificate of {url} {says}"):
            ask(url, ca=authority.pem)
        with pytest.raises(
            DaemonUnreachable, match=r"is not trusted: .*; --ca names the authority"
        ):
            ask(url)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (respond(200, "<html>"), DaemonUnreachable, "is no appliance"),
        (respond(200, "[]"), DaemonUnreachable, "speaks another version"),
        (respond(302, "", more="Location: /login\r\n"), DaemonUnreachable, "is no appliance"),
        (respond(502, "<html>"), DaemonUnreachable, "does not reach one: status 502"),
        (respond(404, '{"error": "not found"}'), NotKnownThere, "is of another version"),
        (respond(401, '{"error": "this needs a token"}'), NotPermitted, "none was given"),
        (
            respond(403, '{"error": "token a lacks x"}'),
            NotPermitted,
            "^http://.*: token a lacks x$",
        ),
        (b"SSH-2.0-OpenSSH\r\n", DaemonUnreachable, "is no HTTP"),
        (b"", DaemonUnreachable, "perhaps it is https://"),
        (respond(200, '{"version": "1"}')[:-5], DaemonUnreachable, "the connection .* broke"),
    ],
)
def test_what_answers_otherwise_is_told_as_what_it_is(answer, error, says):
    with serving(answer) as port, pytest.raises(error) as told:
        ask(f"http://127.0.0.1:{port}")
    assert re.search(says, str(told.value))
    assert "\n" not in str(told.value)


def test_a_server_without_tls_is_told_as_such():
    with (
        serving(respond(400, "no")) as port,
        pytest.raises(DaemonUnreachable, match=f"no TLS; perhaps it is http://127.0.0.1:{port}"),
    ):
        ask(f"https://127.0.0.1:{port}")


def test_one_that_never_shakes_hands_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(remote_way, "CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DaemonUnreachable, match=r"cannot reach .*: no TLS within 0\.05 s"):
            ask(f"https://127.0.0.1:{port}")


def test_a_line_that_is_cut_without_a_word_is_noticed_by_the_system():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = parse_server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        connection = RemoteWay(Server(url=url)).open(3_600.0)
        connection.connect()
        with contextlib.closing(connection):
            assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            unheard = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert (idle, unheard) == (15, 35_000)
    words = RemoteWay(Server(url=url)).explain(OSError(110, "x"))
    assert str(words) == f"the line to {url} is cut: connection timed out"


@pytest.mark.parametrize(
    ("brings", "says"),
    [
        ({"ca": "/nowhere"}, "cannot use the authority /nowhere: No such file"),
        ({"cert": "/nowhere"}, "needs both --cert and --key"),
        ({"cert": "/nowhere", "key": "/nowhere"}, "cannot use the certificate /nowhere"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(brings, says):
    with pytest.raises(ServerInvalid, match=says):
        RemoteWay(Server(url=parse_server("https://ship1"), **brings))
