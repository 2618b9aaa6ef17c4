"""Fetching over HTTP for a peer: only what the patterns cover, only where the patterns may lead, bounded.

A name is resolved once for each request, and the very address that is connected to is judged right before the
connection is made (`socket_factory`): a name that means something else the next time it is asked gains nothing, and
addresses in any spelling are judged alike. Redirects are followed here, one by one, each judged as the first URL was.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from appliance.core.urls import Url, find_permission, is_public_address, parse_url
from appliance.errors import FetchFailed, UrlForbidden
from appliance.methods.texts import shorten
from appliance.running_time import running_timeout

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "appliance"}


class _AddressForbidden(OSError):
    """Raised where a socket is about to be made; aiohttp passes such errors on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer. `is_truncated` tells that `body` goes on where it was found."""

    asked: str
    url: str
    """Where it was found at last."""
    status: int
    reason: str
    body: bytes
    is_truncated: bool

    @property
    def is_success(self) -> bool:
        """Whether it is what was asked for."""
        return 200 <= self.status <= 299


async def fetch(
    url: str, *, patterns: Sequence[str] | None, max_bytes: int, timeout_s: float
) -> Fetched:
    """GET `url`, as far as `patterns` (`allow_urls`) allow it; any status is an answer.

    Raises:
        UrlForbidden: not covered, or a machine that no pattern names is not on the open internet.
        FetchFailed: no answer, in time or at all.
    """
    asked = _parse(url, url)
    url = asked.text  # what is said of it later is harmless
    try:
        async with running_timeout(timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                found = await _get(asked, url, patterns, max_bytes)
                if isinstance(found, Fetched):
                    return found
                # judged anew with each redirect: an address that is allowed may lead to one that is not
                asked = _parse(found, url)
    except TimeoutError:
        raise FetchFailed(url, f"no answer within {timeout_s:g} s") from None
    raise FetchFailed(url, f"more than {MAX_REDIRECTS} redirects")


def _parse(text: str, first: str) -> Url:
    url = parse_url(text)
    if isinstance(url, str):
        first = shorten(first)
        where = "" if text == first else f"redirected to {shorten(text.partition('?')[0])}: "
        raise FetchFailed(first, f"{where}{url}")
    return url


async def _get(
    url: Url, first: str, patterns: Sequence[str] | None, max_bytes: int
) -> Fetched | str:
    """The answer, or where it is said to be."""
    where = "" if url == parse_url(first) else f"redirected to {shorten(url.place + url.path)}, "
    permission = find_permission(url, patterns)
    if permission is None:
        raise UrlForbidden(first, f"{where}not in allow_urls")
    connector = aiohttp.TCPConnector(
        resolver=aiohttp.ThreadedResolver(),
        # nothing of one request may decide about the next
        use_dns_cache=False,
        force_close=True,
        # the address is judged when the socket is made, so that no name can stand for another one meanwhile
        socket_factory=_make_any if permission.names_host else _make_public,
    )
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.get(
                URL(url.text, encoded=True), headers=_HEADERS, allow_redirects=False
            ) as response,
        ):
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location is not None:
                return urljoin(url.text, location)
            body, is_truncated = await read_body(response, max_bytes)
            return Fetched(
                asked=first,
                url=url.text,
                status=response.status,
                reason=response.reason or "",
                body=body,
                is_truncated=is_truncated,
            )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
            raise
        refused = _find_refusal(error)
        if refused is not None:
            raise UrlForbidden(first, f"{where}{refused}") from error
        raise FetchFailed(first, f"{where}{_text_of(error)}") from error


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    """The body up to a bound, and whether something was left out."""
    kept = bytearray()
    async for chunk in response.content.iter_any():
        room = max_bytes - len(kept)
        kept += chunk[:room]
        if len(chunk) > room:
            response.close()
            return bytes(kept), True
    return bytes(kept), False


def _make_any(address_info: Any) -> socket.socket:
    family, kind, protocol, _, _ = address_info
    return socket.socket(family=family, type=kind, proto=protocol)


def _make_public(address_info: Any) -> socket.socket:
    address = str(address_info[4][0])
    if not is_public_address(address):
        raise _AddressForbidden(
            f"{address} is not on the open internet; name the host in allow_urls to allow it"
        )
    return _make_any(address_info)


def _find_refusal(error: BaseException) -> str | None:
    """The refusal that aiohttp wrapped; with several addresses only its words survive."""
    if isinstance(error, aiohttp.ClientConnectorError):
        text = str(error.os_error)
        if "is not on the open internet" in text:
            return text.removeprefix("Multiple exceptions: ")
    return None


def _text_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host's name cannot be resolved: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not good: {shorten(str(error.certificate_error))}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {shorten(error.os_error.strerror or str(error.os_error))}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    return shorten(str(error)) or type(error).__name__
