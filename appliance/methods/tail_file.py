"""REQTailFile: follow a file and pass on what is written to it, line by line, until the message's time is over.

methodArgs: the path; between appliances also ``-n COUNT``, to begin with the last lines, or ``-a PLACE``, to go on where
an earlier answer was cut off: every piece tells where it ends (`places`). Which files may be read is
the config's `allow_paths`, and what counts there is the file that the path leads to, not the links on the way. A file
that is not there yet is waited for (`_tail`).

A subscriber that drains ends its tails and says so; after a crash they are reported as interrupted, since what was
written meanwhile is not known.
"""

from __future__ import annotations

from appliance.core.message import CALLER_FILE, Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.core.outcome import ENDED_EARLY
from appliance.errors import ArgumentsInvalid, HandlerError
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.files.places import Place, Places, read_place
from appliance.methods.files.tail import STREAM, follow
from appliance.methods.programs.chunks import Chunker, run_talk
from appliance.methods.texts import shorten

MAX_LAST_LINES = 100_000
GOES_ON_WITH = "-a"

INFO = MethodInfo(
    name=MethodName("REQTailFile"),
    summary="Follow an allowed file and reply with its new lines as they come.",
    category=Category.EVENT,
    replies=True,
    on_crash=OnCrash.INTERRUPT,
    options=frozenset({"allow_paths"}),
    is_audited=True,
    path_argument=0,
    arguments="PATH [-n COUNT]",
    goes_on_with=GOES_ON_WITH,
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
        path, last_lines, place = _read_arguments(message.method_args or ())
        talk, places = Chunker(), Places()

        async def say(data: bytes, stream: str) -> None:
            where = places.say(data) if stream == STREAM else ""
            await context.outlet.reply(data, stream=stream, place=where)

        async def begin() -> None:
            # before anything is said: whoever goes on must know from where
            if context.asker_is_appliance and message.file_name == CALLER_FILE:
                await say(b"", STREAM)

        is_cut_off = await run_talk(
            talk,
            follow(
                path,
                context.spec.allow_paths,
                talk,
                last_lines=last_lines,
                place=place,
                places=places,
                on_begin=begin,
                tells_absence=context.asker_is_appliance,
            ),
            say,
            timeout_s=context.timeout_s,
            leaving=context.leaving,
        )
        if is_cut_off and context.leaving.is_set():
            raise HandlerError(f"{ENDED_EARLY}the node stops, or does not offer this any more")
        return Result(
            output=talk.rest().get(STREAM, b""), exit_status=0, is_truncated=not talk.room
        )


def _read_arguments(arguments: tuple[str, ...]) -> tuple[str, int, Place | None]:
    if not arguments or not arguments[0]:
        raise ArgumentsInvalid("methodArgs must hold the path of a file")
    path, *rest = arguments
    if not rest:
        return path, 0, None
    if len(rest) != 2 or rest[0] not in ("-n", GOES_ON_WITH):
        raise ArgumentsInvalid(
            f"beside the path only -n COUNT or -a PLACE may be given, not {shorten(' '.join(rest))}"
        )
    option, value = rest
    if option == GOES_ON_WITH:
        place = read_place(value)
        if place is None:
            raise ArgumentsInvalid(f"-a takes a place that a piece told, not {shorten(value)}")
        return path, 0, place
    if not (value.isascii() and value.isdecimal() and len(value) < 7) or (
        int(value) > MAX_LAST_LINES
    ):
        raise ArgumentsInvalid(f"-n takes a number up to {MAX_LAST_LINES}, not {shorten(value)}")
    return path, int(value), None


METHOD = Method(info=INFO, make=TailFile)
