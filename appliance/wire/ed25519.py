"""Ed25519, of libsodium: the one place that knows the library. Pure."""

from __future__ import annotations

from nacl import bindings
from nacl.exceptions import CryptoError

SIGNATURE_BYTES = 64


def key_pair(seed: bytes) -> tuple[bytes, bytes]:
    """The public key that belongs to a seed, and the secret one, in the form that `sign` takes."""
    return bindings.crypto_sign_seed_keypair(seed)


def sign(text: bytes, secret: bytes) -> bytes:
    """The signature of `text`."""
    return bindings.crypto_sign(text, secret)[:SIGNATURE_BYTES]


def is_signature(signature: bytes, text: bytes, public: bytes) -> bool:
    """Whether the holder of a public key signed `text`."""
    try:
        bindings.crypto_sign_open(signature + text, public)
    except (CryptoError, ValueError):
        return False
    return True
