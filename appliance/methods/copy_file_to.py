"""REQCopyFileTo: write the data to a file that `allow_paths` lets be written.

methodArgs are those of the REQCopyFileFrom that it comes from: source, node, and the path here. A sender of ours adds
the content's hash and learns from the acknowledgement that the file is there; a Go node gets its answer as it expects.
"""

from __future__ import annotations

from appliance.core.copying import (
    COPY_CHUNK,
    COPY_TO,
    PIECE_HEADER,
    SHA256_HEADER,
    is_sha256,
    split_target,
)
from appliance.core.message import Message, text_to_bytes
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid, HandlerError
from appliance.methods.base import (
    DONE,
    FileTaker,
    HandlerContext,
    Method,
    Result,
    WriteRights,
)
from appliance.methods.texts import join_data

INFO = MethodInfo(
    name=MethodName(COPY_TO),
    summary="Write the data to a file on the node, atomically.",
    category=Category.EVENT,
    replies=True,
    acks_when_done=True,
    companions=(MethodName(COPY_CHUNK),),
    options=frozenset({"allow_paths"}),
    is_audited=True,
    path_argument=2,
    arguments="SOURCE NODE PATH [mkdir]",
    for_answers=False,
)


class CopyFileTo:
    """Replaces the file in one step; running it twice leaves the same file."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Take a whole file.

        Raises:
            ArgumentsInvalid: the arguments name no file, or the hash is none.
            HandlerError: forbidden, damaged on the way, or the system refuses.
        """
        path = target_path(message)
        sha256 = context.headers.get(SHA256_HEADER)
        if sha256 is not None and not is_sha256(sha256):
            raise ArgumentsInvalid(f"header {SHA256_HEADER} is no hash")
        data = join_data(message)
        await find_taker(context).take_file(
            path, data, sha256, message.from_node, rights_of(message, context)
        )
        if sha256 is not None:
            return DONE
        words = f"wrote {path}, {len(data)} bytes\n"
        return Result(output=text_to_bytes(words), exit_status=0)


def target_path(message: Message) -> str:
    """Where the file goes. Raises ArgumentsInvalid."""
    return split_target(message.method_args or ()).path


def find_taker(context: HandlerContext) -> FileTaker:
    """Where files go. Raises HandlerError where none are taken."""
    if context.files_taker is None:
        raise HandlerError("no files are taken here")
    return context.files_taker


def rights_of(message: Message, context: HandlerContext) -> WriteRights:
    """What the subscriber lets be written at this moment, and what the asker wants made."""
    spec, place = context.spec, split_target(message.method_args or ())
    # a Go node, which sends neither, knows no other way than to make them
    is_copy = SHA256_HEADER in context.headers or PIECE_HEADER in context.headers
    return WriteRights(
        allow_paths=spec.allow_paths,
        max_bytes=spec.max_file_bytes,
        makes_directories=not is_copy or place.makes_directories,
        attributes=place.attributes,
        within=place.within,
    )


METHOD = Method(info=INFO, make=CopyFileTo)
