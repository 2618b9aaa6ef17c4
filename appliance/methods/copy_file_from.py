"""REQCopyFileFrom: send a file of this node to another one, and answer when it is there.

methodArgs: the file here, the node, the path there. What may be read is the subscription's `allow_paths`. Small files
go as one REQCopyFileTo, which Go nodes understand, larger ones in pieces, which appliances do. Their sender is this
node, as with all our messages. The seed kept the asker there, for a Go node tells it that it has the file: so do we where
a Go node asked, unless the receiver is known as an appliance, or turns out to be one and does not take it from the asker.

A copy of any length may take its time: methodTimeout is how long the first sign of the receiver is waited for.
"""

from __future__ import annotations

from appliance.core.copying import COPY_FROM, describe_copied, split_target
from appliance.core.listing import COPY_LIST
from appliance.core.message import Message, text_to_bytes
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName, is_node_name
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import FilePosition, HandlerContext, Method, Result
from appliance.methods.copies.sender import CopySender, Mark
from appliance.methods.copies.source import SourceFile
from appliance.methods.texts import shorten

INFO = MethodInfo(
    name=MethodName(COPY_FROM),
    summary="Copy a file of the node to another node.",
    category=Category.EVENT,
    replies=True,
    journals=True,
    acks_when_done=False,
    companions=(MethodName(COPY_LIST),),
    keeps_time=True,
    options=frozenset({"allow_paths"}),
    is_audited=True,
    path_argument=0,
    arguments="PATH NODE PATH-THERE [mkdir]",
    for_answers=False,
)
_LOCAL = "local"


class CopyFileFrom:
    """A copy that was interrupted goes on where it was."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Copy one file.

        Raises:
            ArgumentsInvalid: something is missing.
            PathForbidden: not in `allow_paths`, or no regular file.
            HandlerError: it cannot be read, it changed, or the receiver has not got it.
        """
        arguments = message.method_args or ()
        target = split_target(arguments).path
        path, to_node = arguments[:2]
        if to_node == _LOCAL:
            to_node = context.node
        if not is_node_name(to_node):
            raise ArgumentsInvalid(f"{shorten(to_node)} is no node name")

        async def note(mark: Mark) -> None:
            await context.intend(FilePosition(mark.transfer, mark.offset, mark.size))

        spec, resume = context.spec, context.resume
        source = await SourceFile.open(path, spec.allow_paths, spec.max_file_bytes)
        try:
            sender = CopySender(
                source,
                message,
                node=context.node,
                to_node=to_node,
                path=target,
                line=context.outlet,
                max_payload_bytes=context.max_payload_bytes,
                wait_s=context.timeout_s,
                resume=None if resume is None else Mark(resume.path, resume.offset, resume.length),
                mark=note,
                in_name_of=""
                if context.asker_is_appliance or context.is_known_appliance(to_node)
                else message.from_node,
            )
            copied = await sender.send()
        finally:
            source.close()
        words = describe_copied(path, f"{to_node}:{target}", copied)
        return Result(output=text_to_bytes(words), exit_status=0)


METHOD = Method(info=INFO, make=CopyFileFrom)
