"""Where a message's file lies below the data directory, decided from names alone.

The rule is the seed generation's (wire section 6.0): directory, then a node's name, then the file
name; a reply is filed under the names of the request it answers. What differs is that names from a
peer cannot leave the data
directory: ``..`` is refused instead of resolved, a leading slash means nothing, and the node token
must be a node's name. The file system's part of the promise (symbolic links) is kept by
`methods.files.confine`.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.core.message import Message, text_to_bytes
from appliance.core.names import is_node_name
from appliance.errors import ArgumentsInvalid, PathForbidden

MAX_PART_BYTES = 255
"""The limit of one name in every common file system."""
MAX_PATH_BYTES = 3_500
"""Bound of the whole relative path, below Linux's 4,096 with room for the data directory itself."""
MAX_PARTS = 64
RESERVED_PREFIX = ".appliance-"
"""Names of our own temporary files; no message may use them."""


def name_parts(
    message: Message, node: str, *, default_directory: str = "", default_file_name: str = ""
) -> tuple[str, ...]:
    """The parts of the path that `message` names, handled on `node`.

    Raises:
        ArgumentsInvalid: no file name is given and the method has no default.
        PathForbidden: the names lead elsewhere, or are no names.
    """
    request = message.previous_message
    if request is None:
        directory, owner, file_name = message.directory, message.to_node or node, message.file_name
    else:
        directory, file_name = request.directory, request.file_name
        owner = request.to_node or message.from_node
    return join_parts(directory or default_directory, owner, file_name or default_file_name)


def join_parts(directory: str, owner: str, file_name: str) -> tuple[str, ...]:
    """Join directory, the name of the owning node, and file name to checked parts.

    Raises:
        ArgumentsInvalid: the file name is empty.
        PathForbidden: a name is not usable.
    """
    if not is_node_name(owner):
        raise PathForbidden(f"{owner[:80]!r} is no node name to file under")
    file_parts = _split(file_name)
    if not file_parts:
        raise ArgumentsInvalid("the message names no file (fileName is empty)")
    parts = (*_split(directory), owner, *file_parts)
    check_parts(parts)
    return parts


def check_parts(parts: Sequence[str]) -> None:
    """Refuse parts that are not plain names below the data directory.

    Raises:
        PathForbidden: with the part and the reason.
    """
    if not parts:
        raise PathForbidden("an empty path names no file")
    if len(parts) > MAX_PARTS:
        raise PathForbidden(f"a path of {len(parts)} parts exceeds the limit of {MAX_PARTS}")
    total_bytes = sum(_check_part(part) + 1 for part in parts)
    if total_bytes > MAX_PATH_BYTES:
        raise PathForbidden(f"a path of {total_bytes} bytes exceeds the limit of {MAX_PATH_BYTES}")


def _check_part(part: str) -> int:
    """The size of one part in bytes."""
    if part in ("", ".", ".."):
        raise PathForbidden(f"{part!r} is no file or directory name")
    if "/" in part or "\0" in part:
        raise PathForbidden(f"{part[:80]!r} holds a slash or a NUL")
    if part.startswith(RESERVED_PREFIX):
        raise PathForbidden(f"{part[:80]!r}: names starting with {RESERVED_PREFIX!r} are reserved")
    try:
        size_bytes = len(text_to_bytes(part))
    except UnicodeEncodeError:
        raise PathForbidden(f"{part[:80]!r} cannot be written as bytes") from None
    if size_bytes > MAX_PART_BYTES:
        raise PathForbidden(
            f"{part[:40]!r}… of {size_bytes} bytes exceeds the limit of {MAX_PART_BYTES}"
        )
    return size_bytes


def _split(text: str) -> list[str]:
    """Split at slashes, dropping empty parts and ``.``; a backslash is an ordinary character."""
    return [part for part in text.split("/") if part not in ("", ".")]
