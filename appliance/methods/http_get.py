"""REQHttpGet: fetch a URL from where the node is, and reply with what is there.

methodArgs: the URL. Which may be fetched is the config's `allow_urls`; a machine that no pattern names must be on the
open internet (`_http`, `core.urls`). A body longer than `max_output_bytes` is cut, which is
told as of a command's output: appliances beside it, Go nodes in a last line.
An answer with another status than 2xx is a failure: the asker and the error log are told, each once.
"""

from __future__ import annotations

from appliance.core.message import Message, bytes_to_text
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid, FetchFailed
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.http.client import fetch
from appliance.methods.texts import mark_cut, shorten

INFO = MethodInfo(
    name=MethodName("REQHttpGet"),
    summary="Fetch an allowed URL and reply with its content.",
    category=Category.EVENT,
    replies=True,
    options=frozenset({"allow_urls"}),
    is_audited=True,
    arguments="URL",
    for_answers=False,
)


class HttpGet:
    """Twice asked is once asked: it only reads."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Fetch the URL in the message's arguments.

        Raises:
            ArgumentsInvalid: there is not exactly one.
            HandlerError: it is forbidden, gave no answer, or one that is no success.
        """
        arguments = message.method_args or ()
        if len(arguments) != 1 or not arguments[0]:
            raise ArgumentsInvalid("methodArgs must hold a URL, and nothing else")
        fetched = await fetch(
            arguments[0],
            patterns=context.spec.allow_urls,
            max_bytes=context.spec.max_output_bytes,
            timeout_s=context.timeout_s,
        )
        if not fetched.is_success:
            said = shorten(bytes_to_text(fetched.body[:200]))
            raise FetchFailed(
                fetched.asked,
                f"answered with status {fetched.status} {shorten(fetched.reason)}"
                f"{': ' if said else ''}{said}",
            )
        output = fetched.body
        if fetched.is_truncated and not context.asker_is_appliance:
            output = mark_cut(output, context.spec.max_output_bytes)
        return Result(output=output, exit_status=0, is_truncated=fetched.is_truncated)


METHOD = Method(info=INFO, make=HttpGet)
