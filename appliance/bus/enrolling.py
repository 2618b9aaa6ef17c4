"""The side of a new node: asks to be let in by an invitation, and hears what came of it."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

from appliance.bus.auth import is_credentials
from appliance.bus.base import BusMessage
from appliance.bus.nats import NatsBus
from appliance.bus.node_keys import public_key_of, sign
from appliance.core.enrolment import (
    REPLIES,
    REQUESTS,
    EnrolmentRequest,
    Result,
    read_answer,
    signed_bytes,
    write_request,
)
from appliance.core.specs import AuthSettings, BrokerSettings, SecretRef, TlsSettings

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 10.0
"""Somebody waits for it once: the way may be as slow as a satellite's."""
MAX_SECRET_CHARACTERS = 65_536
ASKED_AGAIN = 3
"""A request may be one of many, and is then left to be made again."""


def reach(server: str, secret: Path, ca: Path | None) -> BrokerSettings:
    """The settings by which to log in at a broker with the seed, or the credentials, in a file.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    with secret.open() as file:
        has_jwt = is_credentials(file.read(MAX_SECRET_CHARACTERS))
    by = _file(secret)
    return BrokerSettings(
        servers=(server,),
        connect_timeout_s=CONNECT_TIMEOUT_S,
        auth=AuthSettings(credentials=by) if has_jwt else AuthSettings(nkey_seed=by),
        tls=TlsSettings(ca=_file(ca)) if ca is not None else None,
    )


def login_by(broker: BrokerSettings, seed_file: Path) -> BrokerSettings:
    """The settings with another seed to log in by."""
    return replace(broker, auth=AuthSettings(nkey_seed=_file(seed_file)))


async def ask_to_be_let_in(settings: BrokerSettings, node: str, seed: str) -> Result | None:
    """What comes of asking once; None where nobody answers.

    Raises:
        BusUnauthorized: the invitation is worth nothing at this broker.
        BusUnavailable: the broker is away.
    """
    request = EnrolmentRequest(node, public_key_of(seed))
    bus = await NatsBus.open(settings, name="appliance enrol", require_connection=True)
    try:
        answered: asyncio.Queue[Result] = asyncio.Queue()

        def take(messages: list[BusMessage]) -> None:
            for message in messages:
                result = read_answer(message.payload)
                if result is not None:
                    answered.put_nowait(result)

        below = f"{REPLIES}.{request.public_key}"
        await bus.subscribe(f"{below}.*", take)
        for _ in range(ASKED_AGAIN):
            nonce = secrets.token_hex(16)
            signature = sign(seed, signed_bytes(request, nonce))
            await bus.publish(
                REQUESTS, write_request(request, nonce, signature), reply_to=f"{below}.{nonce}"
            )
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    return await answered.get()
            except TimeoutError:
                continue
        return None
    finally:
        await bus.close()


async def try_login(settings: BrokerSettings) -> None:
    """Log in, and out again.

    Raises:
        BusUnauthorized: the broker does not know the key.
        BusUnavailable: the broker is away.
    """
    bus = await NatsBus.open(settings, name="appliance login", require_connection=True)
    await bus.close()


def _file(path: Path) -> SecretRef:
    return SecretRef(kind="file", name=str(path))
