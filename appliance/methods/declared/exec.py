"""A method of the config that runs a program.

Every element of `exec` becomes exactly one argument, whatever the values in it hold: nothing is split, nothing is
expanded, no shell is between. Two cases are decided here: an element that names an argument which the message does not
have is left out, and a value that would put a dash at the beginning of an element, where programs look for options, is
refused unless the config allows it.
"""

from __future__ import annotations

import os

from appliance.core.message import Message, text_to_bytes
from appliance.core.templates import (
    Placeholder,
    Source,
    Template,
    Values,
    highest_argument,
    parse_template,
    render,
    values_of,
)
from appliance.core.user_method import ExecCall
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import HandlerContext, Result
from appliance.methods.programs.command import CommandResult, make_environment, run_command
from appliance.methods.programs.orders import CANCELLED, held
from appliance.methods.programs.runner_client import run_remote
from appliance.methods.programs.running import Leash
from appliance.methods.programs.steward import ending_of, output_of, report_of
from appliance.methods.texts import shorten

_REST: Template = (Placeholder(Source.REST),)


class ExecHandler:
    """Fills the command in, runs it, and makes a reply of the outcome as REQCliCommand does."""

    def __init__(self, call: ExecCall) -> None:
        self._elements = [parse_template(text) for text in call.argv]
        self._rest_from = highest_argument(self._elements) + 1
        self._stdin = parse_template(call.stdin)
        self._environment = [(name, parse_template(text)) for name, text in call.environment]
        self._allow_options = call.allow_options

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Run the program. Raises ArgumentsInvalid when no program can be given the values."""
        values = values_of(message, context.node)
        argv = self.fill(values)
        words = [_to_bytes(element) for element in argv]
        stdin = _to_bytes(render(self._stdin, values) or "", may_hold_nul=True)
        with held(message, context, tuple(argv)) as leash:
            if context.spec.runner is not None:
                running = self._run_by_runner(context.spec.runner, words, stdin, context, message)
                result = await leash.race(running) or CANCELLED
            else:
                result = await self._run_here(words, stdin, context, message, values, leash)
        return Result(
            output=output_of(
                result,
                context.timeout_s,
                is_marked=not context.asker_is_appliance,
                max_bytes=context.spec.max_output_bytes,
            ),
            report=report_of(argv, message, context.timeout_s, result),
            exit_status=result.exit_status,
            stderr=result.stderr,
            is_truncated=result.truncated,
            ending=ending_of(result, context.timeout_s),
        )

    async def _run_by_runner(
        self,
        socket_path: str,
        words: list[bytes],
        stdin: bytes,
        context: HandlerContext,
        message: Message,
    ) -> CommandResult:
        if self._environment:
            raise ArgumentsInvalid(
                "a runner gives programs its own environment: the method has an `environment`"
            )
        return await run_remote(
            socket_path,
            words,
            environment=make_environment({}, message, passed=(), hidden=frozenset()),
            timeout_s=context.timeout_s,
            stop_grace_s=context.spec.stop_grace_s,
            max_output_bytes=context.spec.max_output_bytes,
            stdin=stdin,
        )

    async def _run_here(
        self,
        words: list[bytes],
        stdin: bytes,
        context: HandlerContext,
        message: Message,
        values: Values,
        leash: Leash,
    ) -> CommandResult:
        environment = make_environment(
            os.environ,
            message,
            passed=context.spec.pass_environment,
            hidden=context.hidden_environment,
        )
        environment |= self._fill_environment(values)
        return await run_command(
            words,
            environment=environment,
            timeout_s=context.timeout_s,
            stop_grace_s=context.spec.stop_grace_s,
            max_output_bytes=context.spec.max_output_bytes,
            stdin=stdin,
            leash=leash,
        )

    def fill(self, values: Values) -> list[str]:
        """Program and arguments for one message.

        Raises:
            ArgumentsInvalid: a value would stand where an option is looked for.
        """
        argv: list[str] = []
        for template in self._elements:
            if template == _REST:
                argv += [self._guarded(text) for text in values.args[self._rest_from :]]
                continue
            text = render(template, values)
            if text is None:
                continue
            starts_with_value = bool(template) and not isinstance(template[0], str)
            argv.append(self._guarded(text) if starts_with_value else text)
        return argv

    def _guarded(self, text: str) -> str:
        if text.startswith("-") and not self._allow_options:
            raise ArgumentsInvalid(
                f"{shorten(text)} begins with a dash and could be taken for an option; "
                "the method does not allow that (allow_options)"
            )
        return text

    def _fill_environment(self, values: Values) -> dict[str, str]:
        filled: dict[str, str] = {}
        for name, template in self._environment:
            text = render(template, values)
            if text is not None:
                _to_bytes(text)
                filled[name] = text
        return filled


def _to_bytes(text: str, *, may_hold_nul: bool = False) -> bytes:
    if "\0" in text and not may_hold_nul:
        raise ArgumentsInvalid("an argument holds a NUL, which no program can be given")
    try:
        return text_to_bytes(text)
    except UnicodeEncodeError:
        raise ArgumentsInvalid("an argument holds characters that no encoding can carry") from None
