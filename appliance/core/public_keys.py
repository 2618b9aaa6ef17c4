"""Public NKEYs of nodes: who may log in to the broker as which node. Pure.

Source: the NKEYS format: base32 of a prefix byte, 32 bytes of an Ed25519 key and a CRC-16 (XMODEM, little endian).
"""

from __future__ import annotations

import base64
import binascii

PUBLIC_KEYS = "public_keys"
"""The key of the config that they stand under, in a node."""
PUBLIC_KEY_PATTERN = "^U[A-Z2-7]{55}$"
_KEY_BYTES = 1 + 32


def is_user_key(text: str) -> bool:
    """Whether a text of the pattern is the public key of a user as it was printed: a slip is seen by its checksum."""
    raw = base64.b32decode(text)
    key, checksum = raw[:_KEY_BYTES], raw[_KEY_BYTES:]
    return binascii.crc_hqx(key, 0).to_bytes(2, "little") == checksum
