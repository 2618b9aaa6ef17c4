"""A method of the config that writes a file below the data directory.

The path is taken apart at the slashes that the config wrote, before any value is filled in: a value is one name or a
part of one, and a slash in it is refused. `methods.files.data_dir` keeps the rest of the promise.
"""

from __future__ import annotations

from appliance.core.file_names import check_parts
from appliance.core.message import Message, text_to_bytes
from appliance.core.templates import Template, Values, parse_template, render, values_of
from appliance.core.user_method import FileCall
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import DONE, HandlerContext, Result


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
