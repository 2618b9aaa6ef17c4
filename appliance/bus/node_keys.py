"""NKEYs of nodes, and what is signed by the keys of an account and an operator. A seed is a secret, its public key is not.

Source: the NKEYS format and version 2 of NATS's JWTs, as nats-server reads them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import nkeys

from appliance.core.public_keys import raw_user_key
from appliance.wire.ed25519 import SIGNATURE_BYTES, is_signature

_SEED_BYTES = 32
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_UNLIMITED = -1


class KeyKind(Enum):
    """What a key stands for: the letter that its public key begins with."""

    USER = "U"
    ACCOUNT = "A"
    OPERATOR = "O"


_PREFIXES = {
    KeyKind.USER: nkeys.PREFIX_BYTE_USER,
    KeyKind.ACCOUNT: nkeys.PREFIX_BYTE_ACCOUNT,
    KeyKind.OPERATOR: nkeys.PREFIX_BYTE_OPERATOR,
}


def make_seed(kind: KeyKind = KeyKind.USER) -> str:
    """A new seed, from the system's randomness."""
    seed: bytes = nkeys.encode_seed(os.urandom(_SEED_BYTES), _PREFIXES[kind])
    return seed.decode()


def write_seed(path: Path, seed: str) -> None:
    """Write a seed into a new file, for its owner alone.

    Raises:
        FileExistsError: something is there, and is left as it is: the seed that is lost could be the one in use.
        OSError: it cannot be written.
    """
    seed_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(seed_fd, "w") as file:
        file.write(f"{seed}\n")
        file.flush()
        os.fsync(file.fileno())


def public_key_of(seed: str, kind: KeyKind = KeyKind.USER) -> str:
    """The public key that belongs to a seed.

    Raises:
        ValueError: it is none, or of another kind; the text quotes nothing of it.
    """
    pair = _read_pair(seed, kind)
    public: bytes = pair.public_key
    pair.wipe()
    return public.decode()


def sign(seed: str, data: bytes) -> bytes:
    """The signature of a node's key over some bytes. Raises ValueError."""
    pair = _read_pair(seed, KeyKind.USER)
    try:
        signature: bytes = pair.sign(data)
    finally:
        pair.wipe()
    return signature


def verify(public_key: str, data: bytes, signature: bytes) -> bool:
    """Whether the holder of a key signed these bytes; a signature may be anything."""
    # NB: the library reads signature and bytes as one: a shorter one would take its rest from these
    if len(signature) != SIGNATURE_BYTES:
        return False
    return is_signature(signature, data, raw_user_key(public_key))


def read_seed(text: str) -> bytes:
    """The 32 bytes of a user's seed, of a file that holds the seed or of a credentials file.

    Raises:
        ValueError: there is none; the text quotes nothing of it.
    """
    _, marker, rest = text.partition("-----BEGIN USER NKEY SEED-----")
    seed = rest.partition("-----END")[0].strip(" -\r\n") if marker else text.strip()
    _read_pair(seed, KeyKind.USER).wipe()
    raw: bytes = nkeys.decode_seed(seed.encode())[1]
    return raw


def public_key_of_seed(raw: bytes) -> str:
    """The public key of a user that belongs to a seed of 32 bytes."""
    seed: bytes = nkeys.encode_seed(raw, _PREFIXES[KeyKind.USER])
    return public_key_of(seed.decode())


def write_credentials(seed: str, user_jwt: str) -> str:
    """The text of a credentials file, which `broker.auth.credentials` names."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt.strip()}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.strip()}\n------END USER NKEY SEED------\n"
    )


def sign_user(
    account_seed: str,
    public_key: str,
    name: str,
    publish: Sequence[str],
    subscribe: Sequence[str],
    *,
    issued_at: int,
    expires_at: int | None = None,
) -> str:
    """The JWT of a user of the account, with its permissions; times in seconds since the epoch, None: it does not end."""
    facts = {
        "pub": _allowed(publish),
        "sub": _allowed(subscribe),
        "subs": _UNLIMITED,
        "data": _UNLIMITED,
        "payload": _UNLIMITED,
        "type": "user",
    }
    return _sign(account_seed, KeyKind.ACCOUNT, public_key, name, facts, issued_at, expires_at)


def _allowed(subjects: Sequence[str]) -> dict[str, list[str]]:
    # NB: a list that is empty would allow everything
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


class UserJwt(NamedTuple):
    """What stands in the JWT of a user. It is taken at its word: nothing is verified."""

    public_key: str
    issued_at: int
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    expires_at: int | None


def read_user_jwt(text: str) -> UserJwt | None:
    """The JWT of a user; None where the text is none."""
    try:
        _, claims, _ = text.strip().split(".")
        found = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        facts = found["nats"]
        publish, subscribe = (tuple(facts[verb].get("allow", ())) for verb in ("pub", "sub"))
        ends_at = int(found["exp"]) if found.get("exp") else None
        return UserJwt(str(found["sub"]), int(found["iat"]), publish, subscribe, ends_at)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def sign_account(
    operator_seed: str,
    account_key: str,
    name: str,
    *,
    issued_at: int,
    revoked: Mapping[str, int] = {},
) -> str:
    """The JWT of an account without limits.

    Args:
        revoked: by the public key of a user until when, in seconds since the epoch, its JWTs were issued that count no more.
    """
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    limits: dict[str, Any] = {**dict.fromkeys(names, _UNLIMITED), "wildcards": True}
    facts = {"limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "type": "account"}
    if revoked:
        facts["revocations"] = dict(revoked)
    return _sign(operator_seed, KeyKind.OPERATOR, account_key, name, facts, issued_at)


def sign_operator(operator_seed: str, name: str, *, issued_at: int) -> str:
    """The JWT of an operator, signed by itself."""
    own = public_key_of(operator_seed, KeyKind.OPERATOR)
    return _sign(operator_seed, KeyKind.OPERATOR, own, name, {"type": "operator"}, issued_at)


def _sign(
    seed: str,
    kind: KeyKind,
    subject: str,
    name: str,
    facts: Mapping[str, Any],
    issued_at: int,
    expires_at: int | None = None,
) -> str:
    pair = _read_pair(seed, kind)
    try:
        claims: dict[str, Any] = {
            "jti": "",
            "iat": issued_at,
            "iss": pair.public_key.decode(),
            "name": name,
            "sub": subject,
            "nats": {**facts, "version": 2},
        }
        if expires_at is not None:
            claims["exp"] = expires_at
        # the id is the hash of all else
        digest = hashlib.new("sha512_256", _compact(claims)).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_encode(_compact(_HEADER))}.{_encode(_compact(claims))}"
        return f"{signed}.{_encode(pair.sign(signed.encode()))}"
    finally:
        pair.wipe()


def _read_pair(seed: str, kind: KeyKind) -> nkeys.KeyPair:
    try:
        pair = nkeys.from_seed(seed.strip().encode())
    except Exception:  # noqa: BLE001 - nkeys raises its own errors and those of what it calls; none may quote the seed
        raise ValueError("holds no NKEY seed") from None
    if not pair.public_key.decode().startswith(kind.value):
        pair.wipe()
        raise ValueError(f"holds a seed, but not that of {_A_KIND[kind]}")
    return pair


_A_KIND = {
    KeyKind.USER: "a user",
    KeyKind.ACCOUNT: "an account",
    KeyKind.OPERATOR: "an operator",
}


def _compact(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
