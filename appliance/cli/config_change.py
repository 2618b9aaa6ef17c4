"""Changes of the config that commands propose: a patch to commit, or written into the files where that is asked for."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import Exit, split_paths, warn

if TYPE_CHECKING:
    from appliance.config.edit import Edit

PathsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Config files and directories. Default: APPLIANCE_CONFIG.", metavar="[PATH]…"
    ),
]
WriteOption = Annotated[
    bool,
    typer.Option(
        "--write", help="Write the change into the file, too; without it nothing is changed."
    ),
]


def paths_of(given: Sequence[str] | None) -> list[str]:
    """The paths of the config. Raises BadParameter where nobody says which."""
    paths = list(given or ()) or split_paths(os.environ.get("APPLIANCE_CONFIG", ""))
    if not paths:
        raise typer.BadParameter("name the config, or set APPLIANCE_CONFIG", param_hint="PATH")
    return paths


def propose(paths: Sequence[str], make: Callable[[Mapping[str, str]], Edit], *, write: bool) -> int:
    """Print the patch of a change to the config at some paths, once the whole set was checked with it.

    Raises:
        ConfigUnreadable: a path cannot be read.
        ConfigInvalid: with the change it is no good config.
    """
    from appliance.config.edit import EditImpossible
    from appliance.config.files import read_files
    from appliance.config.loader import load_given
    from appliance.methods.registry import METHOD_TABLE

    contents = read_files(paths).contents
    try:
        edit = make({name: raw.decode() for name, raw in contents.items()})
    except (EditImpossible, UnicodeDecodeError) as error:
        warn(str(error))
        return Exit.DATA
    changed = {**contents, edit.name: edit.new.encode()}
    load_given(changed, "", environ=os.environ, methods=METHOD_TABLE)
    typer.echo(edit._replace(name=_name_in_repository(edit.name)).patch(), nl=False)
    if write:
        try:
            _replace(Path(edit.name), edit.new.encode(), contents.get(edit.name))
        except OSError as error:
            warn(f"{edit.name} cannot be written: {error.strerror}")
            return Exit.NO_PERMISSION if isinstance(error, PermissionError) else Exit.FAILED
        warn(f"{edit.name} is changed")
    return Exit.OK


def _name_in_repository(name: str) -> str:
    """As patches name it: from the root of the work tree, else from here."""
    path = Path(os.path.abspath(name))
    for directory in path.parents:
        if (directory / ".git").exists():
            return str(path.relative_to(directory))
    return os.path.relpath(path)


def _replace(path: Path, content: bytes, seen: bytes | None) -> None:
    """Put other content in a file's place, with its rights and owner; whole, whatever happens."""
    path = path.resolve()
    if (path.read_bytes() if path.exists() else None) != seen:
        raise OSError(0, "it has changed meanwhile")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".appliance-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if seen is None:
                os.fchmod(descriptor, 0o644)
            else:
                status = path.stat()
                os.fchmod(descriptor, status.st_mode & 0o777)
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
