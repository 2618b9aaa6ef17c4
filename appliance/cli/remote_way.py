"""The way to a daemon on another machine: HTTP over TLS, with a token or a certificate, and words for what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from appliance.errors import ApplianceError, DaemonError, DaemonUnreachable

CONNECT_TIMEOUT_S = 10.0
"""For the connection, and as long again for TLS."""
MAX_TOKEN_BYTES = 64 * 1024
KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A line that is cut without a word, as when a laptop changes its network, is noticed within some half a minute."""
UNHEARD_TIMEOUT_MS = 35_000
_HINT_TRUST = "--ca names the authority that signed it"
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
_SELF_SIGNED = frozenset({18, 19, 20, 21})
"""What OpenSSL calls a certificate by."""


class ServerInvalid(ApplianceError):
    """What names a server, or what goes with it, cannot be used."""


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a daemon listens."""

    is_tls: bool
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


def parse_server(text: str, *, may_be_plain: bool = False) -> ServerUrl:
    """A URL of a server; without TLS on this machine alone, unless the one who asks wants it elsewhere.

    Raises:
        ServerInvalid: it is none.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise ServerInvalid(
            f"--server {text[:200]!r} is no URL such as https://host:8090"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise ServerInvalid("--server holds a name or password; a token goes into --token-file")
    if parts.scheme not in ("https", "http") or not host or not host.isprintable():
        raise ServerInvalid(f"--server {text[:200]!r} is no URL such as https://host:8090")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ServerInvalid(
            f"--server {text[:200]!r} has a path; only host and port are named, as in https://host:8090"
        )
    is_tls = parts.scheme == "https"
    if not is_tls and not (may_be_plain or _is_this_machine(host)):
        raise ServerInvalid(
            f"--server {text[:200]}: without TLS everybody on the way reads the token; say https://, or"
            " --insecure-http if the line itself is safe"
        )
    return ServerUrl(is_tls, host, port or (443 if is_tls else 80))


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A daemon on another machine, and what is brought to it."""

    url: ServerUrl
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    options: str = ""
    """How it is named again on a command line, with a space before it."""


def read_token(path: Path) -> str:
    """The token that a file holds.

    Raises:
        ServerInvalid: it cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ServerInvalid(
            f"cannot read the token from {path}: {error.strerror or error}"
        ) from error
    return check_token(raw, f"the token file {path}")


def check_token(raw: bytes, what: str) -> str:
    """A token without the white space around it.

    Raises:
        ServerInvalid: it is none; the text is not quoted.
    """
    text = raw.decode("utf-8", "replace").strip()
    if not text:
        raise ServerInvalid(f"{what} is empty")
    if len(raw) > MAX_TOKEN_BYTES or not (text.isascii() and text.isprintable()):
        raise ServerInvalid(f"{what} holds no token: one line of letters, digits and signs")
    return text


class RemoteWay:
    """See `api_client.Way`."""

    is_remote = True

    def __init__(self, server: Server) -> None:
        """Raises ServerInvalid where a certificate or key cannot be used."""
        self._server = server
        self._url = server.url
        self.name = str(server.url)
        token = server.token
        self.headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = _make_context(server) if server.url.is_tls else None

    def open(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """See `Way`."""
        return _RemoteConnection(self._url, self._tls, timeout_s)

    def explain(self, error: Exception) -> DaemonError | None:
        """See `Way`."""
        words = self._explain(error)
        return None if words is None else DaemonUnreachable(words)

    def explain_refusal(self, status: int, error: str) -> str:
        """See `Way`."""
        if status == 401:
            has_any = self._server.token or self._server.cert
            hint = "" if has_any else "; none was given (--token-file, or --cert with --key)"
            return f"{self.name} does not know who asks: {error}{hint}"
        return f"{self.name}: {error}"

    def _explain(self, error: Exception) -> str | None:
        name, host = self.name, self._url.host
        match error:
            case ssl.SSLCertVerificationError():
                return f"the certificate of {name} {_explain_certificate(error, host)}"
            case ssl.SSLError():
                return self._explain_tls(error)
            case socket.gaierror():
                return f"cannot reach {name}: no address is known for {host}"
            case ConnectionRefusedError():
                return f"no daemon answers on {name}: nobody listens there"
            case _Unconnected():
                return f"cannot reach {name}: {error}"
            case OSError(errno=errno.ETIMEDOUT | errno.EHOSTUNREACH | errno.ENETUNREACH as code):
                return f"the line to {name} is cut: {os.strerror(code).lower()}"
            case http.client.BadStatusLine() if self._tls is None:
                return f"what answers on {name} is no HTTP; perhaps it is https://{host}:{self._url.port}"
            case http.client.IncompleteRead() | ConnectionError():
                words = getattr(error, "strerror", None) or "no whole answer came"
                return (
                    f"the connection with {name} broke: {words.lower()}{self._hint_certificate()}"
                )
            case http.client.HTTPException():
                return f"what answers on {name} is no appliance: {type(error).__name__}"
        return None

    def _explain_tls(self, error: ssl.SSLError) -> str:
        name, reason = self.name, (error.reason or "").replace("_", " ").lower()
        if "wrong version number" in reason or "http request" in reason:
            return f"{name} speaks no TLS; perhaps it is http://{self._url.host}:{self._url.port}"
        if "alert" in reason:
            words = reason.partition("alert ")[2]
            if "certificate" in words or "unknown ca" in words:
                given = (
                    "our certificate"
                    if self._server.cert
                    else "us without a certificate (--cert, --key)"
                )
                return f"{name} does not take {given}: {words}"
            return f"{name} ended TLS: {words}"
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return f"the connection with {name} broke{self._hint_certificate()}"
        return f"no TLS with {name}: {reason or type(error).__name__}"

    def _hint_certificate(self) -> str:
        # NB: a server tells after the handshake, and what it says may be lost with the connection
        return "; it may not take our certificate" if self._server.cert is not None else ""


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return "has expired"
        case code if code == _NOT_YET:
            return "is not valid yet; is the clock here right?"
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            return f"is for another name than {host}"
        case code if code in _SELF_SIGNED:
            return f"is not trusted: {error.verify_message}; {_HINT_TRUST}"
    return f"is not trusted: {error.verify_message}"


class _Unconnected(OSError):
    """No connection came about."""


class _RemoteConnection(http.client.HTTPConnection):
    def __init__(self, url: ServerUrl, tls: ssl.SSLContext | None, timeout_s: float | None) -> None:
        super().__init__(url.host, url.port, timeout=timeout_s)
        self._tls = tls
        self._timeout_s = timeout_s

    def connect(self) -> None:
        try:
            raw = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT_S)
        except (socket.gaierror, ConnectionRefusedError):
            raise
        except TimeoutError as error:
            raise _Unconnected(f"no answer within {CONNECT_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise _Unconnected(error.strerror or str(error)) from error
        try:
            _keep_alive(raw)
            if self._tls is not None:
                try:
                    raw = self._tls.wrap_socket(raw, server_hostname=self.host)
                except TimeoutError as error:
                    raise _Unconnected(f"no TLS within {CONNECT_TIMEOUT_S:g} s") from error
            raw.settimeout(self._timeout_s)
        except BaseException:
            raw.close()
            raise
        self.sock: socket.socket = raw


def _keep_alive(connection: socket.socket) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not every system has all of them
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_TIMEOUT_MS)


def _make_context(server: Server) -> ssl.SSLContext:
    """Only the authority that was named counts; without one those of this system."""
    ca, cert, key = server.ca, server.cert, server.key
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ServerInvalid(f"cannot use the authority {ca}: {_why(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is None and key is None:
        return context
    if cert is None or key is None:
        raise ServerInvalid("a certificate of our own needs both --cert and --key")
    try:
        # NB: an encrypted key is asked for on a terminal alone; elsewhere it fails
        context.load_cert_chain(cert, key, password=None if sys.stdin.isatty() else "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ServerInvalid(
            f"cannot use the certificate {cert} with {key}: {_why(error)}"
        ) from error
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
