"""What stands before every route: who may ask what on which face, and what becomes of errors.

The unix socket is guarded by the rights of its file. On TCP the Host header is checked (a page in a browser must not
reach us under a name of its own), and each route asks for a scope (`access`): what changes something needs a token or
certificate. A writing request with an Origin header comes from a browser: it is taken on TCP only, from the page that
this very listener served, and with the token like any other. Browsers tell when another site's page asks; it may not
even read, save for a person who follows a link to us. A proxy's name, or one of DNS, is ours when `admin.hosts` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import math
import os
import pwd
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field

from aiohttp import web

from appliance import __version__
from appliance.api.access import Caller, Gate, Refusal, RequestKey, find_client_of
from appliance.api.clients import Client, find_address, find_uid
from appliance.api.replies import refuse, refuse_error
from appliance.api.routing import find_scopes
from appliance.core.hidden import Hiding
from appliance.core.specs import Scope
from appliance.errors import ApplianceError

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 * 1024 * 1024
OCTETS = "application/octet-stream"
BODY_TIMEOUT_S = 30.0
MAX_TOLD_HOSTS = 20
MAX_HOST_CHARACTERS = 100
MONITORING = frozenset({"/metrics", "/livez", "/readyz", "/-/healthy", "/-/ready"})
"""What is read by whoever watches machines; it knows them by names of its own."""
_HOST_HEADER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_OVERFLOW_UID = "/proc/sys/kernel/overflowuid"
_USUAL_OVERFLOW_UID = 65_534
_ALL_USERS = 2**32 - 1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RECHECK_S = 1.0
"""How soon a stream of somebody whose token or certificate was taken away ends."""
GRACE_S = 3.0
"""What it has to say so itself."""
WITHDRAWN = RequestKey("withdrawn", str)
_PEER = RequestKey("peer", str)
"""Under this name a request holds the words for it, once its rights are gone."""


class TurnedAway:
    """Names under which a listener was asked in vain, each told once, and of many the first ones."""

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._told: set[str] = set()

    def note(self, header: str, peer: str | None) -> None:
        """A request with this Host header was refused."""
        host = split_host(header)[:MAX_HOST_CHARACTERS]
        if host in self._told or len(self._told) >= MAX_TOLD_HOSTS:
            return
        self._told.add(host)
        fields = {"host": host, "from": peer or "", "setting": self._setting}
        _log.warning("turned away: asked under a name that is not ours", extra={"fields": fields})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerKind:
    """One way in. On TCP `host` is the one listened on, and `gate` knows who may do what."""

    gate: Gate | None = None
    host: str = ""
    turned_away: TurnedAway = field(default_factory=lambda: TurnedAway("admin.hosts"))

    @property
    def is_tcp(self) -> bool:
        """Whether anybody on the network may knock."""
        return self.gate is not None


FACE = web.AppKey("face", ListenerKind)
HIDING = web.AppKey("hiding", Hiding)


def split_host(text: str) -> str:
    """The host of a Host header or a listen address, without its port, in lower case."""
    text = text.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") == 1:
        return text.partition(":")[0]
    return text


def is_host_allowed(header: str, listen_host: str, hosts: Collection[str] = ()) -> bool:
    """Whether a request with this Host header is meant for us; `hosts` are names that were given to us.

    A numeric address cannot be made to point elsewhere by a name server, so it is refused only
    where we listen on loopback and it is none.
    """
    host = split_host(header).rstrip(".") if _HOST_HEADER.fullmatch(header) else ""
    if not host:
        return False
    listen = split_host(listen_host)
    if host == listen or host in _LOOPBACK_NAMES or host in {name.lower() for name in hosts}:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not is_loopback(listen) and host == socket.gethostname().lower()
    return address.is_loopback or not is_loopback(listen)


def is_loopback(listen_host: str) -> bool:
    """Whether only this machine reaches a listener on this host."""
    host = split_host(listen_host)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


@web.middleware
async def turn_errors_into_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The boundary around every request."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = refuse(error.status, error.reason.lower())
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except ApplianceError as error:
        return refuse_error(error, request.app[HIDING].text(str(error)))
    except TimeoutError:
        return refuse(408, "the body did not arrive in time")
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - the boundary around a request
        _log.exception("request failed", extra={"fields": {"path": request.path}})
        text = request.app[HIDING].text(str(error))
        return refuse(500, f"internal error: {type(error).__name__}: {text}")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Host, origin, rights and content type."""
    face = request.app[FACE]
    # before anything else: a page under a foreign name must not even read
    if face.gate is not None and not await _is_meant_for_us(request, face.gate):
        face.turned_away.note(request.headers.get("Host", ""), request.remote)
        # a token that was brought was looked at: it must not be guessed under a name of somebody else's either
        refusal = await face.gate.find_refusal(request)
        if refusal is not None and refusal.retry_after_s:
            return refuse_for(refusal)
        return refuse(
            421, "this Host header names nobody here: admin.hosts lists names, or bring the token"
        )
    if _is_of_another_site(request):
        return refuse(403, "pages of other sites may not ask here")
    is_reading = request.method in ("GET", "HEAD")
    is_foreign = "Origin" in request.headers and not (face.is_tcp and _is_of_our_page(request))
    if not is_reading and is_foreign:
        return refuse(403, "writing requests from web pages are not taken, but from the own page")
    if face.gate is not None:
        refusal = await face.gate.find_refusal(request)
        if refusal is not None:
            return refuse_for(refusal)
    if not is_reading:
        wanted = OCTETS if request.method == "PUT" else "application/json"
        # a foreign page's form can send neither of these types
        if request.body_exists and request.content_type != wanted:
            return refuse(415, f"the body must be {wanted}")
    if face.gate is None or Scope.RELOAD in find_scopes(request):
        return await handler(request)  # a reload answers also whom it takes the token away
    with _watched(request, face.gate):
        return await handler(request)


@contextlib.contextmanager
def _watched(request: web.Request, gate: Gate) -> Iterator[None]:
    """Within the block: a request that goes on is told when its rights are gone, and cut off when it goes on still."""

    async def watch() -> None:
        refusal = None
        while refusal is None:
            await asyncio.sleep(RECHECK_S)
            refusal = await gate.find_withdrawal(request)
        request[WITHDRAWN] = refusal.error
        await asyncio.sleep(GRACE_S)
        if request.transport is not None:
            request.transport.abort()

    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    # most requests are answered long before
    begin = loop.call_later(RECHECK_S, lambda: tasks.append(loop.create_task(watch())))
    try:
        yield
    finally:
        begin.cancel()
        for task in tasks:
            task.cancel()


async def _is_meant_for_us(request: web.Request, gate: Gate) -> bool:
    """Whether it is no page that a name server made us a part of.

    Such a page does not know the token, and no browser takes our certificate for its name. What a monitoring system
    reads is for everybody who reaches the listener, by whatever name, where that is not this machine alone: there the
    page could reach nothing that others could not.
    """
    face, header = request.app[FACE], request.headers.get("Host", "")
    if is_host_allowed(header, face.host, gate.hosts):
        return True
    if _HOST_HEADER.fullmatch(header) is None:
        return False
    if request.secure:
        return True
    is_reading = request.method in ("GET", "HEAD")
    if is_reading and request.path in MONITORING and not is_loopback(face.host):
        return True
    # NB: to a page under a foreign name somebody might have told it
    return "Origin" not in request.headers and (await gate.find_caller(request)).is_known


def _is_of_our_page(request: web.Request) -> bool:
    """Whether a writing request comes from the page that was served under the very Host it asks now, or by a proxy
    under one of the names that were given to us.

    NB: the Host was checked before; without that a name that an attacker's server points at us would do.
    """
    host = request.headers.get("Host", "").lower()
    origins = request.headers.getall("Origin")
    if len(origins) != 1:
        return False
    origin = origins[0].lower()
    if origin in (f"http://{host}", f"https://{host}"):
        return True
    scheme, _, asked = origin.partition("://")
    gate = request.app[FACE].gate
    names = {name.lower() for name in gate.hosts} if gate is not None else set()
    return scheme in ("http", "https") and split_host(asked) in names


def _is_of_another_site(request: web.Request) -> bool:
    """Whether a browser says that a page of another origin asks for itself. Links to us may be followed."""
    if request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return False
    is_link = (
        request.method == "GET"
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
    )
    return not is_link


def may_read_as_we(request: web.Request) -> bool:
    """Whether the one who asks could read all that we can: root, or our own user, on the unix socket."""
    if request.app[FACE].is_tcp:
        return False
    return find_uid(request.transport) in (0, os.geteuid())


async def find_client(request: web.Request) -> Client:
    """Whose share of what is bounded this request takes."""
    gate = request.app[FACE].gate
    if gate is None:
        return Client("unix", str(find_uid(request.transport)))
    return find_client_of(await gate.find_caller(request), find_address(request.transport))


async def find_caller(request: web.Request) -> Caller | None:
    """Who asks; None on the unix socket."""
    gate = request.app[FACE].gate
    return None if gate is None else await gate.find_caller(request)


def refuse_for(refusal: Refusal) -> web.Response:
    """401, 403 or 429, in words, with the scope that is missing."""
    more = {} if refusal.missing is None else {"missing_scope": str(refusal.missing)}
    answer = refuse(refusal.status, refusal.error, **more)
    if refusal.status == 401:
        # a connection whose certificate does not hold any more gets another chance by a new one
        answer.force_close()
        scope = f', scope="{refusal.missing}"' if refusal.missing is not None else ""
        answer.headers["WWW-Authenticate"] = f'Bearer realm="appliance"{scope}'
    if refusal.retry_after_s:
        answer.headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_s)))
    return answer


def is_bearer_of(header: str, wanted: str | None) -> bool:
    """Whether an Authorization header brings the token that is wanted; nobody does where none is."""
    scheme, _, given = header.partition(" ")
    if not wanted or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), wanted.encode("utf-8", "surrogateescape")
    )


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Answers are of the moment and are what they say they are."""
    response.headers["Server"] = f"appliance/{__version__}"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"


async def read_body(request: web.Request) -> bytes:
    """The body, bounded in size and time.

    Raises:
        HTTPRequestEntityTooLarge: larger than 8 MiB.
        TimeoutError: it does not arrive.
    """
    async with asyncio.timeout(BODY_TIMEOUT_S):
        return await request.read()


async def may_see_values(request: web.Request) -> bool:
    """Whether what stands in the config may be shown."""
    caller = await find_caller(request)
    return caller is None or Scope.CONFIG_VALUES in caller.scopes


async def may_see_contents(request: web.Request) -> bool:
    """Whether what was sent and answered may be shown: to who may send it as well."""
    caller = await find_caller(request)
    return caller is None or Scope.SEND in caller.scopes


async def name_peer(request: web.Request) -> str:
    """A user of this machine on the unix socket, on TCP who it is by token or certificate, and the address; "" where it
    cannot be told.
    """
    known = request.get(_PEER)
    if known is None:
        known = request[_PEER] = await _find_peer(request)
    return known


async def _find_peer(request: web.Request) -> str:
    transport = request.transport
    if transport is None:
        return ""
    caller = await find_caller(request)
    if caller is not None:
        return caller.describe(request.remote or "")
    uid = find_uid(transport)
    if uid is None:
        return ""
    return name_user(uid, _read_kernel("/proc/self/uid_map"), _read_kernel(_OVERFLOW_UID))


def name_user(uid: int, uid_map: str, overflow: str) -> str:
    """A user as the kernel gave its number.

    Where this process lives in a user namespace that does not hold every user (a container, a unit with
    `PrivateUsers=`), all others have one number, usually that of "nobody": then nobody knows who it was.
    """
    try:
        holds_all = sum(int(line.split()[2]) for line in uid_map.splitlines()) >= _ALL_USERS
        stands_for_others = uid == int(overflow)
    except (ValueError, IndexError):
        holds_all, stands_for_others = False, uid == _USUAL_OVERFLOW_UID
    if stands_for_others and not holds_all:
        return "unknown user (of another user namespace)"
    name = ""
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
    return f"{name} (uid {uid})" if name else f"uid {uid}"


def _read_kernel(path: str) -> str:
    try:
        # NB: as bytes: no codec is loaded for it while the daemon runs
        with open(path, "rb") as file:
            return file.read(65_536).decode()
    except OSError:
        return ""
