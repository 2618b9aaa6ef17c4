"""REQCopyFileList: which files there are at a place that may be copied from, a line for each. Between appliances only.

Subscribed wherever REQCopyFileFrom is, with its `allow_paths`: what may not be read is not listed. methodArgs: an absolute
path, or a pattern of such (`*`, `?` and `[…]` within one name); `recursive` for what is below directories.
"""

from __future__ import annotations

import asyncio

from appliance.core.listing import COPY_LIST, read_arguments, write_entry
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.copies.listing import list_files

INFO = MethodInfo(
    name=MethodName(COPY_LIST),
    summary="List files that may be copied; comes along with REQCopyFileFrom.",
    category=Category.EVENT,
    replies=True,
    is_companion=True,
    options=frozenset({"allow_paths"}),
    is_audited=True,
    arguments="PATH [recursive]",
    for_answers=False,
)


class CopyFileList:
    """Only reads names, so it may be asked twice."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """List.

        Raises:
            ArgumentsInvalid: no absolute path.
            PathForbidden: nothing that may be read is there.
            HandlerError: it is too much, or the system refuses.
        """
        path, is_recursive = read_arguments(message.method_args or ())
        found = await asyncio.to_thread(
            list_files, path, context.spec.allow_paths, is_recursive=is_recursive
        )
        return Result(output=b"".join(map(write_entry, found)), exit_status=0)


METHOD = Method(info=INFO, make=CopyFileList)
