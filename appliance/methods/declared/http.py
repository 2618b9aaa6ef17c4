"""A method of the config that makes an HTTP request.

The operator wrote scheme, host and port, so loopback is as good as any place. Values of a message stand in path and
query percent-encoded, each within its component, and in headers only as long as they are one line.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote_from_bytes

import aiohttp
from yarl import URL

from appliance.bus.auth import read_secret
from appliance.core.message import Message, text_to_bytes
from appliance.core.specs import SecretRef
from appliance.core.templates import Template, Values, parse_template, render, values_of
from appliance.core.user_method import HttpCall
from appliance.errors import ArgumentsInvalid, BusUnauthorized, HandlerError
from appliance.methods.base import HandlerContext, Result
from appliance.methods.http.client import read_body
from appliance.methods.texts import mark_cut, shorten
from appliance.running_time import running_timeout

MAX_URL_BYTES = 8_192
"""Longer ones are refused by most servers, in worse words."""
MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOR_ANYBODY = frozenset({"accept", "accept-language"})
"""Headers that go along to another origin. Any other may be a secret, whatever its name: `X-Api-Key: ${KEY}`."""
EXIT_FAILED = 1
EXIT_TIMEOUT = 124
"""As for a program that was stopped."""


class HttpHandler:
    """Fills the request in, makes it, and replies with the body of the answer."""

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._url = parse_template(call.url)
        self._headers = [(name, parse_template(text)) for name, text in call.headers]
        self._body = parse_template(call.body)

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Make the request. Raises ArgumentsInvalid when a value cannot stand where it should."""
        values = values_of(message, context.node)
        url = fill_url(self._url, values)
        headers = fill_headers(self._headers, values) | await self._read_secrets()
        body = _to_bytes(render(self._body, values) or "")
        try:
            async with running_timeout(context.timeout_s):
                status, output, is_cut = await self._ask(
                    url, headers, body, context.spec.max_output_bytes
                )
        except TimeoutError:
            what = f"gave no answer within {context.timeout_s:g} s"
            return _failed(self._say(message, what), EXIT_TIMEOUT)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _failed(self._say(message, f"failed: {shorten(_text_of(error))}"), EXIT_FAILED)
        if is_cut and not context.asker_is_appliance:
            output = mark_cut(output, context.spec.max_output_bytes)
        if self._is_success(status):
            return Result(output=output, exit_status=0, is_truncated=is_cut)
        report = self._say(message, f"was answered with status {status}")
        return Result(output=output, exit_status=EXIT_FAILED, report=report, is_truncated=is_cut)

    async def _read_secrets(self) -> dict[str, str]:
        """Read for every request, so that a new secret counts without a word."""
        found: dict[str, str] = {}
        for header, kind, name in self._call.secret_headers:
            ref = SecretRef(kind=kind, name=name)
            try:
                found[header] = await asyncio.to_thread(read_secret, ref, f"the header {header}")
            except BusUnauthorized as error:
                raise HandlerError(str(error)) from error
            _check_line(header, found[header])
        return found

    async def _ask(
        self, url: str, headers: dict[str, str], body: bytes, max_bytes: int
    ) -> tuple[int, bytes, bool]:
        method, place = self._call.method, URL(url, encoded=True)
        first, own = place.origin(), headers
        # a session for each request: nothing of one message may ride along with the next
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            for _ in range(MAX_REDIRECTS + 1):
                async with session.request(
                    method,
                    place,
                    headers={"Accept-Encoding": "identity", "User-Agent": "appliance", **own},
                    data=body or None,
                    allow_redirects=False,
                ) as response:
                    target = self._find_target(response)
                    if target is None:
                        return response.status, *(await read_body(response, max_bytes))
                if response.status == 303 or (response.status in (301, 302) and method == "POST"):
                    # as browsers do: the answer to what was sent stands elsewhere, and is not sent again
                    method, body = "GET" if method != "HEAD" else method, b""
                    own = {name: own[name] for name in own if name.lower() != "content-type"}
                if target.origin() != first:
                    # whoever answers there is not whom the config names; its secrets are not for him
                    if body:
                        raise ValueError(f"redirected to {target.origin()}, which is given no body")
                    own = {name: own[name] for name in own if name.lower() in _FOR_ANYBODY}
                place = target
        raise ValueError(f"more than {MAX_REDIRECTS} redirects")

    def _find_target(self, response: aiohttp.ClientResponse) -> URL | None:
        """Where the answer is said to be, where that is followed. Raises ValueError when it is no place to ask."""
        location = response.headers.get("Location")
        if not self._call.follow_redirects or response.status not in _REDIRECTS or not location:
            return None
        target = response.url.join(URL(location))
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError("redirected to what is no address of HTTP")
        return target.with_user(None)

    def _is_success(self, status: int) -> bool:
        allowed = self._call.allow_status
        return status in allowed if allowed else 200 <= status <= 299

    def _say(self, message: Message, what: str) -> str:
        """Without what a value brought: the place alone."""
        place = URL(self._call.url.partition("{")[0], encoded=True).origin()
        sender = shorten(message.from_node)
        return f"{self._call.method} {place} for {sender}, message {message.id}, {what}"


def fill_url(template: Template, values: Values) -> str:
    """The address for one message: every value within its component.

    Raises:
        ArgumentsInvalid: an argument is not given, or would make the path climb.
    """
    url = render(template, values, _quote)
    if url is None:
        raise ArgumentsInvalid("the address needs an argument that is not given")
    path = url.partition("?")[0]
    if any(part in (".", "..") for part in path.split("/")):
        raise ArgumentsInvalid("a value would make the path of the address climb")
    if len(url) > MAX_URL_BYTES:
        raise ArgumentsInvalid(f"an address of {len(url)} bytes exceeds {MAX_URL_BYTES}")
    return url


def fill_headers(headers: list[tuple[str, Template]], values: Values) -> dict[str, str]:
    """The headers for one message, without those whose argument is not given.

    Raises:
        ArgumentsInvalid: a value holds what ends a header's line, or any other control character.
    """
    filled: dict[str, str] = {}
    for name, template in headers:
        text = render(template, values)
        if text is None:
            continue
        _check_line(name, text)
        filled[name] = text
    return filled


def _check_line(name: str, text: str) -> None:
    if any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in text):
        raise ArgumentsInvalid(f"a value for the header {name} holds a control character")
    _to_bytes(text, strict=True)


def _quote(text: str) -> str:
    return quote_from_bytes(_to_bytes(text), safe="")


def _to_bytes(text: str, *, strict: bool = False) -> bytes:
    try:
        return text.encode() if strict else text_to_bytes(text)
    except UnicodeEncodeError:
        raise ArgumentsInvalid("a value holds characters that cannot be sent") from None


def _text_of(error: Exception) -> str:
    return str(error) or type(error).__name__


def _failed(report: str, exit_status: int) -> Result:
    return Result(output=b"", exit_status=exit_status, report=report)
