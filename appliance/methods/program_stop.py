"""REQProgramStop: end a program that the sender has started here. Between appliances only.

It comes on the subject of the method that started the program, so that nobody needs more rights for it than for the
start, and no more subjects. Whoever sends it names a message of his own: of others he could only guess.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import PROGRAM_STOP, MethodInfo
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.programs.running import ProgramKey

INFO = MethodInfo(
    name=MethodName(PROGRAM_STOP),
    summary="End a program that the sender has started; understood by every method that runs one.",
    category=Category.COMMAND,
    replies=True,
    is_companion=True,
    is_audited=True,
    arguments="ID",
)


class ProgramStop:
    """SIGTERM for its group, SIGKILL after `stop_grace`; what the program says until then comes with its answer."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Answers 0 where it was told to end, 1 where it does not run: then it will not begin any more.

        Raises:
            ArgumentsInvalid: no id.
        """
        (text,) = message.method_args or ("",)
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise ArgumentsInvalid("REQProgramStop takes the id of a message")
        key = ProgramKey(message.from_node, context.program_key.instance, int(text))
        leash = context.programs.end(key)
        # before it is said: a restart must not begin it, nor begin it again
        await context.call_off(key)
        if leash is None:
            words = "it does not run here: it has ended, or will not begin"
            return Result(output=words.encode(), exit_status=1)
        grace = f"{context.spec.stop_grace_s:g}"
        words = f"told to end (SIGTERM; SIGKILL after {grace} s)"
        return Result(output=words.encode(), exit_status=0)


METHOD = Method(info=INFO, make=ProgramStop)
