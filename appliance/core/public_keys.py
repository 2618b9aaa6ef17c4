"""Public NKEYs of nodes: who may log in to the broker as which node. Pure.

Source: the NKEYS format: base32 of a prefix byte, 32 bytes of an Ed25519 key and a CRC-16 (XMODEM, little endian).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

PUBLIC_KEYS = "public_keys"
"""The key of the config that they stand under, in a node."""
PUBLIC_KEY_PATTERN = "^U[A-Z2-7]{55}$"
_PUBLIC_KEY = re.compile(PUBLIC_KEY_PATTERN)
_KEY_BYTES = 1 + 32


def is_public_key(text: str) -> bool:
    """Whether a text that anybody may have written is the public key of a user."""
    return _PUBLIC_KEY.fullmatch(text) is not None and is_user_key(text)


def fingerprint_of(public_key: str) -> str:
    """Half as long as the key, for two people to read to each other: eight groups of four, 128 bits of its SHA-256."""
    digest = hashlib.sha256(public_key.encode()).hexdigest()
    return ":".join(digest[at : at + 4] for at in range(0, 32, 4))


def is_user_key(text: str) -> bool:
    """Whether a text of the pattern is the public key of a user as it was printed: a slip is seen by its checksum."""
    raw = base64.b32decode(text)
    key, checksum = raw[:_KEY_BYTES], raw[_KEY_BYTES:]
    return binascii.crc_hqx(key, 0).to_bytes(2, "little") == checksum


def raw_user_key(text: str) -> bytes:
    """The 32 bytes that a public key of a user stands for."""
    return base64.b32decode(text)[1:_KEY_BYTES]
