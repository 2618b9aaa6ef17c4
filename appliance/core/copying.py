"""Copying files between nodes: what rides on the messages, and the words that both sides know.

A small file is one REQCopyFileTo, exactly as the seed makes it, with its hash in a header. A larger one goes in pieces
as REQCopyFileChunk, which only appliances know; whose piece it is of stands in a header, where it goes in methodArgs as
with REQCopyFileTo. The last piece is sent when all others are acknowledged, so its acknowledgement is the file's. A
piece without data says that no more of this transfer comes.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from appliance.core.message import Texts, text_to_bytes
from appliance.errors import ArgumentsInvalid

COPY_FROM = "REQCopyFileFrom"
COPY_TO = "REQCopyFileTo"
COPY_CHUNK = "REQCopyFileChunk"
SPOOL_WORD = "appliance-copy:"
"""Begins what stands in the place of a path where a file is for whoever asks by the API."""
MAKE_DIRECTORIES = "mkdir"
"""A fourth argument of the methods that copy: missing directories are made. Without it appliances refuse a path in one."""

SHA256_HEADER = "appl-sha256"
"""On REQCopyFileTo: the hash of the content; also tells that the sender needs no answer beside the acknowledgement."""
PIECE_HEADER = "appl-copy"

MAX_WHOLE_BYTES = 1_000_000
"""The seed's limit: what is larger goes in pieces."""
PIECE_BYTES = 256 * 1024
MAX_PIECE_BYTES = 4 * 1024 * 1024
MAX_SIZE_BYTES = 2**50
BEGIN_AGAIN = "the pieces before this one are not here: begin again"
"""The receiver's words when it has lost what it had acknowledged (a part is kept for a day)."""

NOBODY_TOOK = "nobody took"
"""In the words for a receiver that gave no sign; whoever asked tells silence from failure by it."""
UNCONFIRMED = "; it was taken, and the other side does not say more"
HASH_DIFFERS = "sha256 differs"

_COPIED = re.compile(
    r", ([0-9]{1,16}) bytes, sha256 ([0-9a-f]{64})(" + re.escape(UNCONFIRMED) + r")?\n?\Z"
)
_ID = re.compile(r"[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KEYS = frozenset({"id", "offset", "size", "sha256"})
_MAX_HEADER_CHARACTERS = 300
_MAX_PLACE_CHARACTERS = 40_000
_PLACE_KEYS = frozenset({"path", "mkdir", "mode", "owner", "modified_ns", "kept_owner", "within"})


class Piece(NamedTuple):
    """Which part of which file: `id` names the transfer, `sha256` is of the whole."""

    id: str
    offset: int
    size: int
    sha256: str


class Attributes(NamedTuple):
    """What a file has beside its content, where the one who copies says so: the rest is as the target's rules have it."""

    mode: int | None = None
    owner: str = ""
    """``user``, ``user:group`` or ``:group``, names or numbers."""
    modified_ns: int | None = None
    kept_owner: str = ""
    """Likewise that of the source: given as far as whoever writes may give files away and knows the names there."""


NO_ATTRIBUTES = Attributes()
MAX_MODE = 0o777
_OWNER = re.compile(r"[A-Za-z0-9_.$-]{0,64}(:[A-Za-z0-9_.$-]{1,64})?")


class TargetPlace(NamedTuple):
    """Where a copy goes."""

    path: str
    makes_directories: bool = False
    attributes: Attributes = NO_ATTRIBUTES
    within: str = ""
    """Of missing directories only those below this one are made: it is there, or was mistyped. Empty: all."""


NOWHERE = TargetPlace("")


def find_attribute_problem(attributes: Attributes) -> str | None:
    """Words for what no file can have; None where there is nothing."""
    if attributes.mode is not None and not 0 <= attributes.mode <= MAX_MODE:
        return "a mode is 0 to 0777"
    if not all(map(_may_be_owner, (attributes.owner, attributes.kept_owner))):
        return "an owner is USER, USER:GROUP or :GROUP"
    if attributes.modified_ns is not None and not 0 <= attributes.modified_ns < 2**63:
        return "a time of change is nanoseconds since 1970"
    return None


def _may_be_owner(text: str) -> bool:
    return _OWNER.fullmatch(text) is not None and text != ":"


def keep_owner(text: str) -> str:
    """The owner of a source as `kept_owner`; nothing where its name is one that no message carries."""
    return text if _may_be_owner(text) else ""


def join_target(place: TargetPlace) -> list[str]:
    """The arguments that follow source and node.

    With attributes the path stands in JSON behind an empty text: whoever does not know that finds no path and refuses,
    and no file comes to be without what was asked for.
    """
    if place.attributes == NO_ATTRIBUTES and not place.within:
        return [place.path, *([MAKE_DIRECTORIES] if place.makes_directories else [])]
    said: dict[str, object] = {"path": place.path, "mkdir": place.makes_directories}
    said |= {"within": place.within} if place.within else {}
    said |= {
        name: value for name, value in place.attributes._asdict().items() if value not in (None, "")
    }
    return ["", json.dumps(said)]


def needs_appliance(arguments: Sequence[str]) -> bool:
    """Whether a message that copies asks for what no other node does: to a Go node the path is an empty text, at which
    it writes nothing.
    """
    return len(arguments) > 2 and not arguments[2]


def split_target(arguments: Sequence[str]) -> TargetPlace:
    """The place that the arguments of a message that copies name.

    Raises:
        ArgumentsInvalid: they name none, or ask for what is not known here.
    """
    if len(arguments) < 3 or not all(arguments[:2]) or (not arguments[2] and len(arguments) < 4):
        raise ArgumentsInvalid("methodArgs must hold source path, node and destination path")
    if arguments[2]:
        return TargetPlace(arguments[2], MAKE_DIRECTORIES in arguments[3:])
    try:
        found = json.loads(arguments[3]) if len(arguments[3]) <= _MAX_PLACE_CHARACTERS else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.keys() - _PLACE_KEYS:
        raise ArgumentsInvalid(
            f"what this version knows of a destination is {', '.join(sorted(_PLACE_KEYS))}"
        )
    path, mode, modified_ns = found.get("path"), found.get("mode"), found.get("modified_ns")
    owner, mkdir = found.get("owner", ""), found.get("mkdir", False)
    kept_owner, within = found.get("kept_owner", ""), found.get("within", "")
    are_right = isinstance(mkdir, bool) and all(
        isinstance(text, str) for text in (path, owner, kept_owner, within)
    )
    if (
        not are_right
        or not path
        or not all(type(n) in (int, type(None)) for n in (mode, modified_ns))
    ):
        raise ArgumentsInvalid("the destination is of another type than it should be")
    attributes = Attributes(mode, owner, modified_ns, kept_owner)
    problem = find_attribute_problem(attributes)
    if problem is not None:
        raise ArgumentsInvalid(problem)
    return TargetPlace(path, mkdir, attributes, within)


class Copied(NamedTuple):
    """What was copied. `is_confirmed` tells that the receiver says it is there, which a Go node cannot."""

    size: int
    sha256: str
    is_confirmed: bool


def describe_copied(source: str, target: str, copied: Copied) -> str:
    """The line that says what was copied."""
    verb = "copied" if copied.is_confirmed else "handed over"
    rest = "" if copied.is_confirmed else UNCONFIRMED
    return f"{verb} {source} to {target}, {copied.size} bytes, sha256 {copied.sha256}{rest}\n"


def read_copied(line: str) -> Copied | None:
    """What such a line says; None when it is another one, as from a Go node."""
    found = _COPIED.search(line)
    if found is None:
        return None
    return Copied(int(found[1]), found[2], is_confirmed=found[3] is None)


def name_transfer(*, node: str, source: str, target: str, size: int, sha256: str) -> str:
    """The same content on the same way has the same name: a repeat goes on with what is there."""
    facts = [node, source, target, str(size), sha256]
    return hashlib.sha256(b"\0".join(map(text_to_bytes, facts))).hexdigest()[:32]


def write_piece(piece: Piece) -> str:
    """The header's text."""
    return json.dumps(piece._asdict(), separators=(",", ":"))


def read_piece(text: str | None) -> Piece:
    """Take the header apart.

    Raises:
        ArgumentsInvalid: it is missing or is not what a sender of ours writes.
    """
    if text is None:
        raise ArgumentsInvalid(f"a piece of a file without the header {PIECE_HEADER}")
    if len(text) > _MAX_HEADER_CHARACTERS:
        raise ArgumentsInvalid(f"header {PIECE_HEADER} is longer than {_MAX_HEADER_CHARACTERS}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ArgumentsInvalid(f"header {PIECE_HEADER} is no JSON") from None
    if not isinstance(found, dict) or found.keys() != _KEYS:
        raise ArgumentsInvalid(f"header {PIECE_HEADER} holds other keys than {sorted(_KEYS)}")
    piece = Piece(**found)
    for name, pattern in (("id", _ID), ("sha256", _HASH)):
        value = found[name]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ArgumentsInvalid(f"header {PIECE_HEADER}: {name} is none")
    for name in ("offset", "size"):
        value = found[name]
        if type(value) is not int or not 0 <= value <= MAX_SIZE_BYTES:
            raise ArgumentsInvalid(f"header {PIECE_HEADER}: {name} is no size of a file")
    return piece


def pack_piece(data: bytes) -> str:
    """The data of a piece as text: bytes that are no text cost thirty times as much to carry as they are."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def unpack_piece(texts: Texts) -> bytes:
    """The bytes again.

    Raises:
        ArgumentsInvalid: not one text, or no base64.
    """
    if texts is None or len(texts) != 1:
        raise ArgumentsInvalid("the data of a piece is one text")
    try:
        return binascii.a2b_base64(texts[0], strict_mode=True)
    except ValueError:
        raise ArgumentsInvalid("the data of a piece is no base64") from None


def check_piece(piece: Piece, length: int) -> None:
    """Whether data of this length can be this piece.

    Raises:
        ArgumentsInvalid: it cannot.
    """
    if not 1 <= length <= MAX_PIECE_BYTES:
        raise ArgumentsInvalid(f"a piece of {length} bytes: 1 to {MAX_PIECE_BYTES} are taken")
    if piece.offset + length > piece.size:
        raise ArgumentsInvalid(
            f"a piece up to byte {piece.offset + length} of a file of {piece.size} bytes"
        )


def is_sha256(text: str) -> bool:
    """Whether `text` is written as our hashes are."""
    return _HASH.fullmatch(text) is not None
