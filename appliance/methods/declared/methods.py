"""From the definition of a method in the config to a `Method` as those of the program have one."""

from __future__ import annotations

from appliance.config.arguments import ArgumentRules, compile_arguments
from appliance.core.file_names import check_parts
from appliance.core.message import Message, text_to_bytes
from appliance.core.specs import SubscriberSpec
from appliance.core.templates import Template, Values, parse_template, render, values_of
from appliance.core.user_method import FileCall, UserMethod
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import DONE, Handler, HandlerContext, Method, Result
from appliance.methods.declared.exec import ExecHandler
from appliance.methods.declared.http import HttpHandler
from appliance.methods.programs.orders import PROGRAM_ORDERS


class CheckedHandler:
    """Lets a message through to the handler when its arguments are such as the schema wants."""

    def __init__(self, rules: ArgumentRules, handler: Handler) -> None:
        self._rules = rules
        self._handler = handler

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Check, then perform. Raises ArgumentsInvalid before anything was done."""
        problem = self._rules.find_problem(message.method_args or ())
        if problem is not None:
            raise ArgumentsInvalid(problem)
        return await self._handler.handle(message, context)


def make_user_method(spec: SubscriberSpec) -> Method:
    """The method that a subscriber's spec defines; a swap to another definition makes another one."""
    definition = spec.definition
    assert definition is not None
    return Method(
        info=definition.info,
        make=lambda: make_handler(definition),
        orders=PROGRAM_ORDERS if definition.info.runs_programs else {},
        renew=make_user_method,
    )


def make_handler(definition: UserMethod) -> Handler:
    """A handler of one definition, for as long as the last message taken under it is in hand."""
    return CheckedHandler(compile_arguments(definition.args), _make_action(definition))


def _make_action(definition: UserMethod) -> Handler:
    if definition.exec is not None:
        return ExecHandler(definition.exec)
    if definition.http is not None:
        return HttpHandler(definition.http)
    assert definition.file is not None
    return FileHandler(definition.file)


# A method of the config that writes a file below the data directory.
#
# The path is taken apart at the slashes that the config wrote, before any value is filled in: a value is one name or a
# part of one, and a slash in it is refused. `methods.files.data_dir` keeps the rest of the promise.


class FileHandler:
    """Appends to the file exactly once, or replaces it in one step."""

    def __init__(self, call: FileCall) -> None:
        self._parts = [
            part
            for text in (call.directory, call.name)
            for part in split_path(parse_template(text))
        ]
        self._content = parse_template(call.content)
        self._is_append = call.mode == "append"

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Write. Raises PathForbidden or ArgumentsInvalid when the values make no path."""
        values = values_of(message, context.node)
        parts = self.fill(values)
        content = _to_bytes(render(self._content, values) or "")
        if self._is_append:
            await context.files.append(parts, content, resume=context.resume, intend=context.intend)
        else:
            await context.files.write(parts, content)
        return DONE

    def fill(self, values: Values) -> tuple[str, ...]:
        """The path for one message.

        Raises:
            ArgumentsInvalid: an argument that the path needs is not given.
            PathForbidden: a value is no name.
        """
        parts: list[str] = []
        for template in self._parts:
            part = render(template, values)
            if part is None:
                raise ArgumentsInvalid("the file's name needs an argument that is not given")
            parts.append(part)
        check_parts(parts)
        return tuple(parts)


def split_path(template: Template) -> list[Template]:
    """A path's templates: split at the slashes of its literal texts; empty parts and ``.`` mean nothing."""
    parts: list[list[object]] = [[]]
    for piece in template:
        if not isinstance(piece, str):
            parts[-1].append(piece)
            continue
        first, *others = piece.split("/")
        parts[-1].append(first)
        parts.extend([other] for other in others)
    cleaned = [tuple(piece for piece in part if piece != "") for part in parts]
    return [part for part in cleaned if part and part != (".",)]  # type: ignore[misc]


def _to_bytes(text: str) -> bytes:
    try:
        return text_to_bytes(text)
    except UnicodeEncodeError:
        raise ArgumentsInvalid("the data holds characters that no encoding can carry") from None
