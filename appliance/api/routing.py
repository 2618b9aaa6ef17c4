"""What a route is, told beside the handler that answers it: verb and path, the scope it asks for, its line in the index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from appliance.core.specs import ALL_SCOPES, Scope

_MARK = "_routes"
HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[web.StreamResponse]])


@dataclass(frozen=True, slots=True)
class Route:
    """One verb on one path, as aiohttp writes paths: ``/api/v1/jobs/{id}``."""

    verb: str
    path: str
    scope: Scope | None
    """What who asks over TCP has to have; None: nothing."""
    words: str = ""
    """What the index says of it; "" where another route of the path does."""
    allow_head: bool = True


ROUTES = web.AppKey("routes", dict[tuple[str, str], Route])
"""All routes of an application by verb and path."""


def route(
    verb: str, path: str, scope: Scope | None, words: str = "", *, allow_head: bool = True
) -> Callable[[HandlerT], HandlerT]:
    """Have a method answer a route; `allow_head` tells whether a GET may be asked by HEAD, too.

    The scope is no option: what is served to whom cannot be forgotten.
    """
    found = Route(verb, path, scope, words, allow_head)

    def mark(handler: HandlerT) -> HandlerT:
        setattr(handler, _MARK, (found, *getattr(handler, _MARK, ())))
        return handler

    return mark


def routes_of(owner: type) -> Iterator[tuple[Route, str]]:
    """The routes that methods of a class answer, with the methods' names, as they stand there."""
    for name, value in vars(owner).items():
        for found in getattr(value, _MARK, ()):
            yield found, name


def add_routes(app: web.Application, *owners: object) -> None:
    """Serve the routes of these objects. Once for an application."""
    app[ROUTES] = known = {}
    for owner in owners:
        for found, name in routes_of(type(owner)):
            handler = getattr(owner, name)
            known[found.verb, found.path] = found
            if found.verb == "GET":
                app.router.add_get(found.path, handler, allow_head=found.allow_head)
            else:
                app.router.add_route(found.verb, found.path, handler)


def find_scopes(request: web.Request) -> frozenset[Scope]:
    """The scopes that a request needs."""
    resource = request.match_info.route.resource
    verb = "GET" if request.method == "HEAD" else request.method
    if resource is None:
        return frozenset()  # there is no such route, which is all that is told
    found = request.app[ROUTES].get((verb, resource.canonical))
    if found is None:
        return ALL_SCOPES  # added past `add_routes`: served to nobody but `admin.token`
    return frozenset() if found.scope is None else frozenset({found.scope})


def write_index(app: web.Application) -> str:
    """The routes that have something to say, a line each."""
    told = [(found.path, found.words) for found in app[ROUTES].values() if found.words]
    width = max(len(path) for path, _ in told)
    return "".join(f"{path:{width}} {words}\n" for path, words in told)
