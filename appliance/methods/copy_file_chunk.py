"""REQCopyFileChunk: a piece of a file too large for one message. Between appliances only.

Subscribed wherever REQCopyFileTo is. A Go node has no such subject, so it never gets a piece.
"""

from __future__ import annotations

from appliance.core.copying import COPY_CHUNK, PIECE_HEADER, read_piece, unpack_piece
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.copy_file_to import find_taker, rights_of, target_path

INFO = MethodInfo(
    name=MethodName(COPY_CHUNK),
    summary="Take a piece of a large file; comes along with REQCopyFileTo.",
    category=Category.EVENT,
    acks_when_done=True,
    keeps_time=True,
    is_companion=True,
    options=frozenset({"allow_paths"}),
    is_audited=True,
    path_argument=2,
    for_answers=False,
)


class CopyFileChunk:
    """A piece may come again, and in any order."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Take one piece.

        Raises:
            ArgumentsInvalid: header or arguments are not what a sender of ours writes.
            HandlerError: forbidden, the whole is not what was sent, or the system refuses.
        """
        piece = read_piece(context.headers.get(PIECE_HEADER))
        path = target_path(message)
        data = unpack_piece(message.data)
        taker, rights = find_taker(context), rights_of(message, context)
        if data:
            await taker.take_piece(path, data, piece, message.from_node, rights)
        else:
            await taker.forget(path, piece, message.from_node, rights)
        return DONE


METHOD = Method(info=INFO, make=CopyFileChunk)
