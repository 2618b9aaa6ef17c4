"""Which requests are entered in the audit trail, and what of them: who asked, what for, what was answered.

Entered are requests that change something and that the guards let pass, once, when their answer begins; a stream thus
with its first line. What strangers are refused is no entry: it would push out what happened.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web

from appliance.api.guards import FACE, find_client, name_peer
from appliance.core.audit import Trail
from appliance.core.audit_room import Crowd, Sender

MAX_NAMES = 20
"""So many nodes or methods of a request are named."""
QUESTIONS = frozenset({"/api/v1/plan", "/api/v1/targets", "/api/v1/programs"})
"""Requests that bring something along and change nothing."""
_FACTS: web.RequestKey[dict[str, Any] | None] = web.RequestKey("audit")


TRAIL: web.AppKey[Trail] = web.AppKey("trail")


def tell_audit(request: web.Request, **facts: Any) -> None:
    """What a request that changes something is about; lists are cut."""
    known = request.get(_FACTS)
    if known is None:
        known = request[_FACTS] = {}
    known |= {
        name: _short(value) for name, value in facts.items() if value not in (None, "", False)
    }


async def enter(request: web.Request, response: web.StreamResponse) -> None:
    """An answer begins: enter the request. For `on_response_prepare`."""
    facts = request.get(_FACTS)
    if facts is None and (_FACTS in request or not _changes_something(request, response.status)):
        return
    # once, whatever else is sent
    request[_FACTS] = None
    whence = request.remote or "" if request.app[FACE].is_tcp else "unix socket"
    asked = f"{request.method} {request.path[:200]}"
    more = {"from": whence}
    request.app[TRAIL].note(
        by=await name_peer(request),
        asked=asked,
        what=facts or {},
        outcome=response.status,
        sender=await _find_sender(request),
        **more,
    )


async def _find_sender(request: web.Request) -> Sender:
    """Whose room in the trail it takes: a user's of this machine, or a name's, wherever it comes from."""
    client = await find_client(request)
    is_of_machine = not request.app[FACE].is_tcp
    return Sender(Crowd.OPERATORS, f"uid {client.name}" if is_of_machine else client.kind)


def _changes_something(request: web.Request, status: int) -> bool:
    """Whether a request of which its handler told nothing is an entry all the same: done, and no question."""
    if request.method in ("GET", "HEAD") or status >= HTTPStatus.BAD_REQUEST:
        return False
    # a copy is told when it begins; what follows are its parts
    return request.path not in QUESTIONS and not request.path.startswith("/api/v1/copies/")


def _short(value: object) -> object:
    if isinstance(value, list | tuple | set | frozenset):
        names = (
            sorted(map(str, value)) if isinstance(value, set | frozenset) else list(map(str, value))
        )
        names = list(dict.fromkeys(name[:200] for name in names))
        return names[:MAX_NAMES] + (
            [f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
        )
    return value[:200] if isinstance(value, str) else value
