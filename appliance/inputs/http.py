"""The HTTP listener: POST at any path, the text as the body, the answer as JSON.

Pages in a browser must not reach it: the Host header must be ours, an Origin header is refused, and
the content type must be one that a page cannot send elsewhere without asking first.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from http import HTTPStatus

from aiohttp import web

from appliance.api.clients import find_address
from appliance.api.guards import TurnedAway, add_headers, is_bearer_of, is_host_allowed
from appliance.api.limits import Logins, say_too_many
from appliance.api.port import Port, http_log
from appliance.core.current import Current
from appliance.core.durations import format_duration
from appliance.core.specs import InputSettings
from appliance.errors import ApplianceError
from appliance.inputs.importer import Answer, Importer, Outcome, refuse
from appliance.inputs.reading import TextKind
from appliance.inputs.stream import ReadToken

_log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 2.0
_JSON = "application/json"
_TYPES = frozenset(
    {_JSON, "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/vnd.yaml"}
)
_CHUNK_BYTES = 65_536
_SPARE_CONNECTIONS = 32
"""Connections beyond those that are served: their requests get an answer that says so."""

_STATUS = {
    Outcome.TAKEN: HTTPStatus.OK,
    Outcome.PARTLY: HTTPStatus.MULTI_STATUS,
    Outcome.REFUSED: HTTPStatus.BAD_REQUEST,
    Outcome.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Outcome.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    Outcome.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
}


class _Refused(Exception):
    """The request is answered without a look into its body."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class HttpListener:
    """One listener with the application behind it."""

    def __init__(
        self,
        host: str,
        port: int,
        importer: Importer,
        settings: Current[InputSettings],
        read_token: ReadToken,
    ) -> None:
        self._host = host
        self._importer = importer
        self._settings = settings
        self._read_token = read_token
        self._in_hand = 0
        self._open: set[asyncio.BaseProtocol] = set()
        self._turned_away = TurnedAway("inputs.http.token")
        self._logins = Logins(time.monotonic)
        self.port = Port(self._make, host, port)
        app = web.Application()
        app.on_response_prepare.append(add_headers)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_log,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            handle_signals=False,
            keepalive_timeout=settings.value.idle_timeout_s,
            lingering_time=1.0,
            auto_decompress=False,
        )

    @property
    def connections(self) -> int:
        """Requests in hand."""
        return self._in_hand

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be taken."""
        if self._runner.server is None:
            await self._runner.setup()
        await self.port.resume()

    async def stop(self) -> None:
        """The end, for connections too."""
        await self.port.pause()
        await self._runner.cleanup()

    def _make(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        protocol: asyncio.BaseProtocol = self._runner.server()
        self._open = {known for known in self._open if getattr(known, "transport", None)}
        if len(self._open) >= self._settings.value.max_connections + _SPARE_CONNECTIONS:
            loop = asyncio.get_running_loop()
            # NB: two turns: in the first one the protocol is given its transport
            loop.call_soon(loop.call_soon, _close, protocol)
        self._open.add(protocol)
        return protocol

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            answer = await self._take(request)
            status = int(_STATUS[answer.outcome])
        except _Refused as refused:
            answer = refuse(Outcome.REFUSED, refused.message)
            status, headers = refused.status, refused.headers
            self._importer.count_refused("http")
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary around a request
            _log.exception("input request failed")
            answer = refuse(Outcome.REFUSED, f"internal error: {type(error).__name__}")
            status = 500
        if status == 503:
            headers["Retry-After"] = "1"
        return web.Response(
            body=answer.encode(),
            status=status,
            headers=headers,
            content_type=_JSON,
            charset="utf-8",
        )

    async def _take(self, request: web.Request) -> Answer:
        settings = self._settings.value
        await self._check(request)
        if self._in_hand >= settings.max_connections:
            raise _Refused(429, "too many requests at a time; try again later", Retry_After="1")
        self._in_hand += 1
        try:
            raw = await _read_body(request, settings)
            kind = TextKind.JSON if request.content_type == _JSON else TextKind.ANY
            return await self._importer.inject("http", raw, kind=kind, atomic=_read_atomic(request))
        finally:
            self._in_hand -= 1

    async def _check(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        given = request.headers.get("Authorization", "")
        wanted, trouble = "", ""
        try:
            wanted = await self._read_token() or ""
        except ApplianceError as error:
            trouble = str(error)
        is_right = is_bearer_of(given, wanted)
        if wanted and given:
            address = find_address(request.transport)
            wait_s = self._logins.wait_s(address, given, is_right=is_right)
            if wait_s > 0:
                retry_after = str(max(1, math.ceil(wait_s)))
                raise _Refused(429, say_too_many(wait_s), Retry_After=retry_after)
        # with the token it is certainly no page under a name that somebody made point at us
        if not is_host_allowed(host, self._host) and not is_right:
            self._turned_away.note(host, request.remote)
            raise _Refused(
                421, "this Host header names nobody here: bring the token, or an address"
            )
        if "Origin" in request.headers:
            raise _Refused(403, "requests from web pages are not taken")
        if request.method != "POST":
            raise _Refused(405, "messages come by POST", Allow="POST")
        if trouble:
            raise _Refused(503, f"nobody can be let in now: {trouble}")
        if wanted and not is_right:
            raise _Refused(
                401,
                "the bearer token of `inputs.http.token` is needed",
                WWW_Authenticate='Bearer realm="appliance"',
            )
        if request.content_type not in _TYPES:
            raise _Refused(415, "the content type must be application/json or application/yaml")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused(415, "compressed bodies are not taken")


async def _read_body(request: web.Request, settings: InputSettings) -> bytes:
    too_large = _Refused(413, f"the text exceeds {settings.max_bytes} bytes (`inputs.max_bytes`)")
    if (request.content_length or 0) > settings.max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.timeout_s):
            while True:
                async with asyncio.timeout(settings.idle_timeout_s):
                    chunk = await request.content.read(_CHUNK_BYTES)
                if not chunk:
                    return bytes(body)
                body += chunk
                if len(body) > settings.max_bytes:
                    raise too_large
    except TimeoutError:
        limits = f"{format_duration(settings.idle_timeout_s)} of silence or "
        limits += f"{format_duration(settings.timeout_s)} in all"
        raise _Refused(408, f"the body did not arrive in time: {limits}") from None


def _read_atomic(request: web.Request) -> bool | None:
    """``?atomic`` asks for all or none; None where nothing is asked."""
    asked = request.query.get("atomic")
    return None if asked is None else asked.lower() not in ("0", "false", "no")


def _close(protocol: asyncio.BaseProtocol) -> None:
    transport = getattr(protocol, "transport", None)
    if transport is not None:
        transport.close()
