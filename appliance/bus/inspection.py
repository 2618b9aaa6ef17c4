"""Whether what a config names as secrets and certificates can be used, and until when.

What is read is kept for one thing only: so that no text that leaves shows it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from appliance.bus.auth import (
    MAX_BUNDLE_BYTES,
    check_tls,
    is_credentials,
    make_listener_context,
    read_secret,
)
from appliance.bus.node_keys import read_seed
from appliance.core.secret_refs import find_signing_ref
from appliance.core.signatures import find_strange_key
from appliance.core.specs import AdminTls, DesiredState, SecretRef, SignaturePolicy, TlsSettings
from appliance.core.times import EXPIRES_SOON_S
from appliance.errors import BusUnauthorized
from appliance.wire.ed25519 import key_pair

_BROKER, _LISTENER = "broker.tls", "admin.tls"
_PARTS = {_BROKER: ("cert", "ca", "key"), _LISTENER: ("cert", "key", "client_ca")}
_SEED, _CREDENTIALS = "broker.auth.nkey_seed", "broker.auth.credentials"
_MAX_CERTIFICATES = 1_000
"""A bundle of all public authorities holds some hundred and fifty."""


class Inspected(NamedTuple):
    """One secret as it was found. `digest` changes with its text, "" where it cannot be read; `trouble` is in words.

    `expires_at` is wall-clock seconds, None for what knows no end.
    """

    ref: SecretRef
    digest: str
    trouble: str | None = None
    expires_at: float | None = None
    text: str = ""
    """The secret itself, to be hidden; "" for what everybody may see."""


_PUBLIC = frozenset(
    {
        *("broker.auth.user", "broker.tls.ca", "broker.tls.cert"),
        *("admin.tls.cert", "admin.tls.client_ca"),
    }
)


def is_for_all_to_read(place: str, path: str) -> bool:
    """Whether a file that the config names is no secret: a name, or certificates without a key among them. Blocks."""
    if place not in _PUBLIC:
        return False
    try:
        with open(path, "rb") as file:
            return b"PRIVATE KEY" not in file.read(MAX_BUNDLE_BYTES)
    except OSError:
        return False


def texts_to_hide(found: Iterable[Inspected]) -> dict[str, str]:
    """Every secret, and how it is written."""
    return {one.text: f"{{{one.ref.kind}: {one.ref.name}}}" for one in found if one.text}


def inspect_secrets(
    refs: Mapping[str, SecretRef], now: float, ends: Mapping[str, float] | None = None
) -> Mapping[str, Inspected]:
    """Read every secret and judge it, by the place that names it; `ends` are those that the config sets. Blocks on files."""
    found = {place: _inspect(place, ref, now) for place, ref in refs.items()}
    for place, ends_at in (ends or {}).items():
        item = found[place]
        words = f"{place} has expired" if ends_at <= now else item.trouble
        found[place] = item._replace(trouble=item.trouble or words, expires_at=ends_at)
    for section, names in _PARTS.items():
        places = [f"{section}.{name}" for name in names if f"{section}.{name}" in found]
        if not places or any(found[place].trouble is not None for place in places):
            continue
        # each can be read, but do they belong together?
        try:
            _check_together(section, {name: refs.get(f"{section}.{name}") for name in names})
        except BusUnauthorized as error:
            found[places[0]] = found[places[0]]._replace(trouble=str(error))
    return found


def find_signing_trouble(desired: DesiredState) -> str | None:
    """What keeps the daemon's nodes from signing, or their signatures from counting. Blocks on files."""
    signing = {
        spec.node for spec in desired.workers.values() if spec.signatures is not SignaturePolicy.OFF
    }
    ref = find_signing_ref(desired)
    if not signing or ref is None:
        return None
    try:
        public = key_pair(read_seed(read_secret(ref, "the key to sign with")))[0]
    except (BusUnauthorized, ValueError) as error:
        return f"the key to sign with: {error}"
    return find_strange_key(desired, signing, public)


def _check_together(section: str, parts: Mapping[str, SecretRef | None]) -> None:
    if section == _BROKER:
        check_tls(TlsSettings(**parts))
    else:
        make_listener_context(AdminTls(**parts))


def expires_soon(inspected: Inspected, now: float) -> bool:
    """Whether it can be used, but not for long."""
    at = inspected.expires_at
    return inspected.trouble is None and at is not None and at - now < EXPIRES_SOON_S


def _inspect(place: str, ref: SecretRef, now: float) -> Inspected:
    try:
        text = read_secret(ref, place)
    except BusUnauthorized as error:
        return Inspected(ref, "", str(error))
    found = Inspected(
        ref, hashlib.sha256(text.encode()).hexdigest(), text="" if place in _PUBLIC else text
    )
    try:
        expires_at = _find_end(place, text)
    except ValueError as error:
        return found._replace(trouble=f"{place} from {ref.kind} {ref.name} {error}")
    if expires_at is not None and expires_at <= now:
        trouble = f"{place} from {ref.kind} {ref.name} has expired"
        return found._replace(trouble=trouble, expires_at=expires_at)
    return found._replace(expires_at=expires_at)


def _find_end(place: str, text: str) -> float | None:
    """When it ends. Raises ValueError, which never quotes the text, where it is not what its place asks for."""
    match place:
        case "broker.tls.cert" | "admin.tls.cert":
            # a chain ends with the first of it
            return min(_certificate_ends(text))
        case "broker.tls.ca" | "admin.tls.client_ca":
            # of a bundle the authorities end one by one: it can be used until the last has
            return max(_certificate_ends(text))
        case "broker.auth.credentials":
            if not is_credentials(text):
                raise ValueError("holds no user JWT with its NKEY seed")
            return _jwt_end(text)
        case "broker.auth.nkey_seed":
            _check_seed(text)
        case "signing.key":
            read_seed(text)
    return None


def _certificate_ends(text: str) -> list[float]:
    ends = [_certificate_end(der) for der in _pem_blocks(text)]
    if not ends:
        raise ValueError("holds no certificate in PEM")
    return ends


def _pem_blocks(text: str) -> Iterator[bytes]:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    for part in text.split(begin)[1 : _MAX_CERTIFICATES + 1]:
        body, marker, _ = part.partition(end)
        if not marker:
            raise ValueError("holds a certificate that is cut off")
        try:
            yield ssl.PEM_cert_to_DER_cert(f"{begin}\n{body.strip()}\n{end}\n")
        except (ValueError, binascii.Error):
            raise ValueError("holds a certificate that cannot be read") from None


def _certificate_end(der: bytes) -> float:
    from pyasn1.codec.der import decoder  # NB: a tenth of a second, for those with TLS
    from pyasn1.error import PyAsn1Error
    from pyasn1_modules import rfc5280

    try:
        certificate, _ = decoder.decode(der, asn1Spec=rfc5280.Certificate())
        written = certificate["tbsCertificate"]["validity"]["notAfter"].getComponent()
        at: datetime.datetime = written.asDateTime
    except (PyAsn1Error, ValueError, RecursionError):
        raise ValueError("holds a certificate that cannot be read") from None
    return at.timestamp()


def _jwt_end(text: str) -> float | None:
    """The `exp` of a user JWT; None for one without end."""
    body = text.split("-----BEGIN NATS USER JWT-----", 1)[-1].strip().splitlines()
    parts = body[0].strip().split(".") if body else []
    if len(parts) != 3:
        raise ValueError("holds a user JWT that cannot be read")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        end = msgspec.json.decode(payload, type=_Claims).exp
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise ValueError("holds a user JWT that cannot be read") from None
    return float(end) or None


class _Claims(msgspec.Struct):
    exp: int = 0


def _check_seed(text: str) -> None:
    import nkeys

    try:
        nkeys.from_seed(text.encode()).wipe()
    except Exception:  # noqa: BLE001 - nkeys raises its own errors and those of what it calls; none may quote the seed
        raise ValueError("is no NKEY seed") from None
