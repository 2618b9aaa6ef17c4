"""The page at `/`: files that come with the program, served as they are under a strict policy.

Everything on it is made in the browser from the API's own answers, so there is nothing to render here. What it shows
comes from peers and is not to be trusted: the policy lets no script run but the page's own, lets nobody frame it, and
lets no text become markup (`require-trusted-types-for`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from aiohttp import web

from appliance.api.routing import route

HTML = "text/html"
INDEX_FILE = "index.html"
_TYPES = {
    "html": HTML,
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
PAGE_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def load_page() -> dict[str, bytes]:
    """The page's files by name; read once, since they only change with the program."""
    folder = resources.files("appliance").joinpath("page")
    return {
        item.name: item.read_bytes()
        for item in folder.iterdir()
        if item.name.rpartition(".")[2] in _TYPES
    }


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks; `curl` accepts anything and gets the plain index."""
    return HTML in request.headers.get("Accept", "")


class PageRoutes:
    """Handlers over the page's files."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self._files = load_page() if files is None else files

    def index(self) -> web.Response:
        """The page itself."""
        return self._answer(INDEX_FILE)

    @route("GET", "/page/{name}", None)
    async def file(self, request: web.Request) -> web.Response:
        """One of its files."""
        name = request.match_info["name"]
        if name not in self._files or name == INDEX_FILE:
            raise web.HTTPNotFound
        return self._answer(name)

    def _answer(self, name: str) -> web.Response:
        return web.Response(
            body=self._files[name],
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={**PAGE_HEADERS, "Vary": "Accept"},
        )
