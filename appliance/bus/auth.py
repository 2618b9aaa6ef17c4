"""Secrets and TLS towards the broker: read when a connection is made, never kept, never shown.

Reading at every attempt means that a rotated key, certificate or password is taken at the next reconnect without a
restart. A secret's text never stands in an error: only the place it was to be read from.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.specs import AdminTls, AuthSettings, SecretRef, TlsSettings
from appliance.errors import BusUnauthorized

_MAX_SECRET_BYTES = 64 * 1024
"""Far above any key or JWT in use by brokers; a wrong path (a log, a device) stays harmless."""
MAX_BUNDLE_BYTES = 1024 * 1024
"""Of certificates: the public authorities of a Linux system take some 220 KiB."""

_TLS_REASONS = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "KEY_TYPE_MISMATCH": "the key is not that of the certificate",
    "NO_START_LINE": "there is no certificate, or no key, in PEM",
    "NOT_ENOUGH_DATA": "there is no certificate in PEM",
    "EE_KEY_TOO_SMALL": "the key is too short for what counts as safe today",
    "CA_MD_TOO_WEAK": "a signature is by an algorithm that does not count as safe any more",
    "BAD_END_LINE": "the file is cut off",
    "BAD_BASE64_DECODE": "the file is damaged",
}
"""What OpenSSL calls what people do wrong."""


@dataclass(slots=True, kw_only=True)
class Login:
    """Everything a handshake presents, as text in memory for the length of one attempt."""

    nkey_seed: str | None = field(default=None, repr=False)
    credentials: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def read_login(auth: AuthSettings | None, tls: TlsSettings | None) -> Login:
    """Read every secret the settings name and build the TLS context. Blocks on files.

    Raises:
        BusUnauthorized: a secret cannot be read, or a certificate or key is unusable.
    """
    login = Login()
    if auth is not None:
        login.user = auth.user
        login.nkey_seed = _read_optional(auth.nkey_seed, "nkey_seed")
        login.credentials = _read_optional(auth.credentials, "credentials")
        if login.credentials is not None and not is_credentials(login.credentials):
            raise BusUnauthorized("the credentials hold no user JWT with its NKEY seed")
        login.password = _read_optional(auth.password, "password")
        login.token = _read_optional(auth.token, "token")
    if tls is not None:
        login.tls = _make_context(tls)
    return login


def read_secret(ref: SecretRef, what: str) -> str:
    """Read one secret; surrounding white space is not part of it.

    Raises:
        BusUnauthorized: it cannot be read, is empty, or is too large to be a secret.
    """
    try:
        text = _read_text(ref)
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            if ref.kind == "credential" and isinstance(error, FileNotFoundError):
                reason += _ONLY_AT_A_START
        elif isinstance(error, KeyError):
            reason = "the environment variable is not set"
        else:
            reason = "it is not text of at most 64 KiB"
        raise BusUnauthorized(f"cannot read {what} from {ref.kind} {ref.name}: {reason}") from None
    text = text.strip()
    if not text:
        raise BusUnauthorized(f"{what} from {ref.kind} {ref.name} is empty")
    return text


_ONLY_AT_A_START = " (systemd hands a unit the credentials that it lists, when it starts it)"


def _read_text(ref: SecretRef) -> str:
    if ref.kind == "env":
        return os.environ[ref.name]
    if ref.kind == "credential":
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise FileNotFoundError(2, "$CREDENTIALS_DIRECTORY is not set")
        if "/" in ref.name or ref.name in {".", ".."}:
            raise FileNotFoundError(2, "a credential is named without a path")
        path = Path(directory, ref.name)
    else:
        path = Path(ref.name)
    with path.open("rb") as file:
        raw = file.read(MAX_BUNDLE_BYTES + 1)
    is_bundle = b"-----BEGIN CERTIFICATE-----" in raw
    if len(raw) > (MAX_BUNDLE_BYTES if is_bundle else _MAX_SECRET_BYTES):
        raise ValueError
    return raw.decode("utf-8")


def _read_optional(ref: SecretRef | None, what: str) -> str | None:
    return None if ref is None else read_secret(ref, what)


def is_credentials(text: str) -> bool:
    """Whether a text is a credentials file."""
    # nats-py would look for a missing marker without end.
    return "BEGIN NATS USER JWT" in text and "BEGIN USER NKEY SEED" in text


def check_tls(tls: TlsSettings) -> None:
    """Load authority, certificate and key as a connection would.

    Raises:
        BusUnauthorized: one cannot be read, or they do not belong together.
    """
    _make_context(tls)


def _say_tls_error(error: Exception) -> str:
    reason = getattr(error, "reason", None) or type(error).__name__
    words = _TLS_REASONS.get(reason, "")
    return f"{words} ({reason})" if words else reason


def _make_context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if tls.ca is not None:
            # Only the named authority counts: a broker's private CA is not to be joined by every public one.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=read_secret(tls.ca, "tls.ca"))
        if tls.cert is not None:
            certificate = read_secret(tls.cert, "tls.cert")
            key = "" if tls.key is None else read_secret(tls.key, "tls.key")
            _load_certificate(context, f"{certificate}\n{key}\n")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BusUnauthorized(
            f"the tls certificates or key are unusable: {_say_tls_error(error)}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class ListenerContext(ssl.SSLContext):
    """TLS of a listener."""

    client_ca: str = ""
    """The authorities of callers' certificates, as they were read."""


def make_listener_context(tls: AdminTls) -> ListenerContext:
    """Read certificate, key and authority. Blocks on files.

    Raises:
        BusUnauthorized: one cannot be read, or they do not belong together.
    """
    context = ListenerContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if tls.cert is not None and tls.key is not None:
            pem = read_secret(tls.cert, "admin.tls.cert"), read_secret(tls.key, "admin.tls.key")
            _load_certificate(context, "\n".join((*pem, "")))
        if tls.client_ca is not None:
            context.client_ca = read_secret(tls.client_ca, "admin.tls.client_ca")
            context.load_verify_locations(cadata=context.client_ca)
            # tokens and browsers without a certificate are welcome, too: what one may is decided with each request
            context.verify_mode = ssl.CERT_OPTIONAL
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BusUnauthorized(
            f"certificates or key of admin.tls are unusable: {_say_tls_error(error)}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a session that is taken up again would not be asked for its certificate
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_certificate(context: ssl.SSLContext, pem: str) -> None:
    """Load certificate and key through a file in memory: OpenSSL's loader takes a path only."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        # An encrypted key would make OpenSSL ask on the terminal: an empty password makes it fail instead.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)
