"""Who asks over TCP, and what they may: by a bearer token or a client certificate, both read and judged with each request.

`admin.token` allows everything; a token or certificate with a name has scopes of its own, and may end. What a route asks
for stands beside its handler (`routing`). Guessing costs time, and so does asking without a pause (`Limits`); who is
known by name has shares of its own, so that strangers at the same address cannot use them up.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from appliance.api.clients import Client, find_address
from appliance.api.limits import Limits
from appliance.api.routing import find_scopes
from appliance.bus.auth import ListenerContext, read_secret
from appliance.core.current import Current
from appliance.core.specs import (
    ALL_SCOPES,
    AdminCertificate,
    AdminSettings,
    AdminToken,
    ReadingBy,
    Scope,
    SecretRef,
)
from appliance.core.times import read_utc, rfc3339
from appliance.errors import ApplianceError

PLAIN_TOKEN = "admin.token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `trouble` says why what was brought does not hold; it never quotes it."""

    kind: str = "stranger"
    """``token``, ``certificate`` or ``stranger``."""
    name: str = ""
    scopes: frozenset[Scope] = frozenset()
    expires_at: str | None = None
    trouble: str = ""
    guess: bytes = b""
    """Of a token that is none what tells it from others, and not what it is."""

    @property
    def is_known(self) -> bool:
        """Whether it is one of those that the config names."""
        return self.kind != "stranger"

    @property
    def has_name(self) -> bool:
        """Whether it has one of its own, beside `admin.token`."""
        return self.is_known and self.name != PLAIN_TOKEN

    @property
    def title(self) -> str:
        """``token ci``, ``certificate anna``, ``token``."""
        return f"{self.kind} {self.name}" if self.has_name else self.kind

    def describe(self, address: str) -> str:
        """For the history: ``token ci, from 10.0.0.7``."""
        return f"{self.title}, from {address}"


STRANGER = Caller()
RequestKey: Any = getattr(
    web, "RequestKey", web.AppKey
)  # which only newer versions of aiohttp have
_CALLER = RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served."""

    status: int
    error: str
    missing: Scope | None = None
    retry_after_s: float = 0.0


class Gate:
    """Judges requests by the settings of now."""

    def __init__(
        self,
        settings: Current[AdminSettings],
        *,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._wall = wall
        self._limits = Limits(mono)
        self._salt = os.urandom(16)
        self.tls: ListenerContext | None = None
        """What connections are made with now."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that were given to us."""
        return self._settings.value.hosts

    @property
    def has_tokens(self) -> bool:
        """Whether anybody can be known at all."""
        settings = self._settings.value
        return bool(settings.token or settings.tokens or settings.certificates)

    async def find_caller(self, request: web.Request) -> Caller:
        """Who asks; judged once for a request."""
        caller: Caller | None = request.get(_CALLER)
        if caller is None:
            caller = request[_CALLER] = await self._judge(request)
        return caller

    async def find_refusal(self, request: web.Request) -> Refusal | None:
        """Why the request is not served, None where it is. Counts it."""
        caller = await self.find_caller(request)
        address = find_address(request.transport)
        who = (caller.kind, caller.name) if caller.is_known else None
        wait_s = self._limits.count(who, address, guess=caller.guess)
        if wait_s > 0:
            words = "too many failed logins from here" if caller.guess else "too many requests"
            return Refusal(429, f"{words}; try again in {max(1, round(wait_s))} s", None, wait_s)
        return self._refuse(request, caller)

    async def find_withdrawal(self, request: web.Request) -> Refusal | None:
        """Why a request that was let in would not be now."""
        return self._refuse(request, await self._judge(request))

    def _refuse(self, request: web.Request, caller: Caller) -> Refusal | None:
        wanted = find_scopes(request)
        is_reading = request.method in ("GET", "HEAD")
        if is_reading and not wanted:
            return None
        is_open = self._settings.value.reading is ReadingBy.ANYBODY
        # what watches machines was told to bring a token that is gone, perhaps: it goes on seeing what all may see
        if is_reading and wanted <= {Scope.READ} and is_open and not caller.is_known:
            is_shown = not caller.trouble or request.path == "/metrics"
            return None if is_shown else Refusal(401, caller.trouble)
        missing = sorted(wanted - caller.scopes)
        if caller.is_known and not missing:
            return None
        if caller.is_known:
            scopes = ", ".join(missing)
            return Refusal(403, f"{caller.kind} {caller.name} lacks the scope {scopes}", missing[0])
        scope = missing[0] if missing else None
        words = f" with the scope {scope}" if scope else ""
        error = caller.trouble or f"this needs a token or certificate{words} over TCP"
        return Refusal(401, error, scope)

    async def _judge(self, request: web.Request) -> Caller:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._judge_token(given.strip())
        return self._judge_certificate(request)

    async def _judge_token(self, given: str) -> Caller:
        settings = self._settings.value
        kept = (
            [AdminToken(name=PLAIN_TOKEN, token=settings.token, scopes=ALL_SCOPES)]
            if settings.token
            else []
        )
        kept += settings.tokens
        if not kept:
            return Caller(trouble="no token is set up here (admin.tokens)")
        texts = await asyncio.to_thread(_read_all, [item.token for item in kept])
        raw = given.encode("utf-8", "surrogateescape")
        found: AdminToken | None = None
        # NB: every one is compared, whichever it is: how long it takes tells nothing
        for item, text in zip(kept, texts, strict=True):
            is_it = hmac.compare_digest(raw, (text or "").encode("utf-8", "surrogateescape"))
            if is_it and text and found is None:
                found = item
        if found is None:
            guess = hashlib.blake2b(raw, digest_size=16, key=self._salt).digest()
            return Caller(trouble="the token is none of this daemon", guess=guess)
        return self._make_caller("token", found)

    def _judge_certificate(self, request: web.Request) -> Caller:
        transport = request.transport
        found: Mapping[str, Any] = (
            transport.get_extra_info("peercert") if transport else None
        ) or {}
        if transport is None or not found:
            return STRANGER
        context = transport.get_extra_info("ssl_object").context
        in_force = self.tls.client_ca if self.tls is not None else ""
        if not isinstance(context, ListenerContext) or context.client_ca != in_force:
            return Caller(
                trouble="the certificate was judged by an authority that is not in force any more"
            )
        ends_at = ssl.cert_time_to_seconds(found["notAfter"])
        if ends_at <= self._wall():
            return Caller(trouble="the certificate has expired")
        names = CertificateNames.of(found)
        for item in self._settings.value.certificates:
            if names.fits(item):
                return self._make_caller("certificate", item)
        shown = ascii(names.describe())[1:-1]
        return Caller(trouble=f"the certificate of {shown} is not named in admin.certificates")

    def _make_caller(self, kind: str, item: AdminToken | AdminCertificate) -> Caller:
        if item.expires_at is not None:
            ends_at = read_utc(item.expires_at)
            if ends_at is None or ends_at <= self._wall():
                return Caller(trouble=f"{kind} {item.name} has expired")
            return Caller(
                kind=kind, name=item.name, scopes=item.scopes, expires_at=rfc3339(ends_at)
            )
        return Caller(kind=kind, name=item.name, scopes=item.scopes)


def _read_all(refs: list[SecretRef]) -> list[str | None]:
    """Blocks on files. One that cannot be read is nobody's; the secret watch tells of it."""
    found: list[str | None] = []
    for ref in refs:
        try:
            found.append(read_secret(ref, "token"))
        except ApplianceError:
            found.append(None)
    return found


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The names of a certificate that was verified."""

    common: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, certificate: Mapping[str, Any]) -> CertificateNames:
        """From what Python tells of it."""
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        others = [value for _, value in certificate.get("subjectAltName", ())]
        return cls(tuple(value for name, value in subject if name == "commonName"), tuple(others))

    def fits(self, item: AdminCertificate) -> bool:
        """Whether an entry of the config means it."""
        return item.cn in self.common if item.cn is not None else item.san in self.others

    def describe(self) -> str:
        """The name that says most."""
        return ", ".join([*self.common[:1], *self.others[:1]])[:200] or "nobody"


def find_client_of(caller: Caller, address: str) -> Client:
    """Whose share of what is bounded a request takes: of each name, and of all strangers together."""
    if not caller.is_known:
        return Client("stranger", address)
    return Client(caller.title, address)
