"""REQTailFile: follow a file and pass on what is written to it, line by line, until the message's time is over.

methodArgs: the path; between appliances also ``-n COUNT``, to begin with the last lines. Which files may be read is
the config's `allow_paths`, and what counts there is the file that the path leads to, not the links on the way. A file
that is not there yet is waited for (`_tail`).

A subscriber that drains ends its tails and says so; after a crash they are reported as interrupted, since what was
written meanwhile is not known.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid, HandlerError
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.files.tail import STREAM, follow
from appliance.methods.programs.chunks import Chunker, run_talk
from appliance.methods.texts import shorten

MAX_LAST_LINES = 100_000

INFO = MethodInfo(
    name=MethodName("REQTailFile"),
    summary="Follow an allowed file and reply with its new lines as they come.",
    category=Category.EVENT,
    replies=True,
    on_crash=OnCrash.INTERRUPT,
    options=frozenset({"allow_paths"}),
    path_argument=0,
    arguments="PATH [-n COUNT]",
    for_answers=False,
)


class TailFile:
    """The lines go out by the outlet; the result only says that the time is over."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Follow the file in the message's arguments.

        Raises:
            ArgumentsInvalid: no absolute path is given, or something else beside it.
            PathForbidden: not in `allow_paths`, or no regular file.
            HandlerError: it cannot be read, or the subscriber leaves.
        """
        path, last_lines = _read_arguments(message.method_args or ())
        talk = Chunker()

        async def say(data: bytes, stream: str) -> None:
            await context.outlet.reply(data, stream=stream)

        is_cut_off = await run_talk(
            talk,
            follow(
                path,
                context.spec.allow_paths,
                talk,
                last_lines=last_lines,
                tells_absence=context.asker_is_appliance,
            ),
            say,
            timeout_s=context.timeout_s,
            leaving=context.leaving,
        )
        if is_cut_off and context.leaving.is_set():
            raise HandlerError("ended early: the node stops, or does not offer this any more")
        return Result(
            output=talk.rest().get(STREAM, b""), exit_status=0, is_truncated=not talk.room
        )


def _read_arguments(arguments: tuple[str, ...]) -> tuple[str, int]:
    if not arguments or not arguments[0]:
        raise ArgumentsInvalid("methodArgs must hold the path of a file")
    path, *rest = arguments
    if not rest:
        return path, 0
    if len(rest) != 2 or rest[0] != "-n":
        raise ArgumentsInvalid(
            f"beside the path only -n COUNT may be given, not {shorten(' '.join(rest))}"
        )
    count = rest[1]
    if not (count.isascii() and count.isdecimal() and len(count) < 7) or (
        int(count) > MAX_LAST_LINES
    ):
        raise ArgumentsInvalid(f"-n takes a number up to {MAX_LAST_LINES}, not {shorten(count)}")
    return path, int(count)


METHOD = Method(info=INFO, make=TailFile)
