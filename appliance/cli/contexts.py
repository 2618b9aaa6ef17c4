"""Named servers, in `$XDG_CONFIG_HOME/appliance/contexts.yaml`: where each is, and the files of what is brought."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from appliance.core.suggest import did_you_mean, find_nearest
from appliance.durable_file import write_private
from appliance.errors import ApplianceError

HERE = "local"
"""The name that stands for the daemon of this machine."""
MAX_FILE_BYTES = 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?")
_HEAD = "# Servers that `appliance -c NAME …` talks to; written by `appliance context`.\n"


class ContextsUnusable(ApplianceError):
    """The file of contexts cannot be used, or has no such context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One server by name. Tokens and keys stand in files of their own."""

    server: str
    token_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure_http: bool = False


@dataclass(frozen=True, slots=True)
class Contexts:
    """All of them, and the one that is used where nothing else is said."""

    current: str | None = None
    by_name: Mapping[str, Context] = field(default_factory=dict)

    def find(self, name: str) -> Context:
        """One of them.

        Raises:
            ContextsUnusable: there is none of this name.
        """
        found = self.by_name.get(name)
        if found is None:
            nearest = did_you_mean(find_nearest(name, self.by_name))
            raise ContextsUnusable(
                f"no context {name[:100]!r}{nearest}; `appliance context list` shows them{_hint(name)}"
            )
        return found

    def with_one(self, name: str, context: Context) -> Contexts:
        """With this one, in the place of another of its name."""
        return Contexts(self.current, {**self.by_name, name: context})

    def without(self, name: str) -> Contexts:
        """Without it."""
        rest = {known: item for known, item in self.by_name.items() if known != name}
        return Contexts(None if self.current == name else self.current, rest)

    def using(self, name: str | None) -> Contexts:
        """With another current one."""
        return replace(self, current=name)


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where our files of the user are."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "appliance"


def contexts_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where they are kept."""
    return config_dir(environ) / "contexts.yaml"


def token_path(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a token that was typed in is kept."""
    return config_dir(environ) / "tokens" / name


def read_contexts(path: Path) -> Contexts:
    """Those of a file; none where it is not there.

    Raises:
        ContextsUnusable: it cannot be read, is none, or others may write it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            raw = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        if _is_of_somebody_else(path):
            return Contexts()
        raise ContextsUnusable(f"cannot read {path}: {error.strerror or error}") from error
    # who may write it decides where tokens are sent
    if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise ContextsUnusable(f"{path}: others may write it; it is yours alone: chmod 600, chown")
    if len(raw) > MAX_FILE_BYTES:
        raise ContextsUnusable(f"{path}: more than {MAX_FILE_BYTES} bytes")
    from appliance.config.parse import parse_foreign

    document = parse_foreign(str(path), raw)
    if document.problems:
        problem = document.problems[0]
        raise ContextsUnusable(f"{path}:{problem.line}: {problem.message}")
    return _read_tree(path, document.tree)


def _is_of_somebody_else(path: Path) -> bool:
    """Whether it lies where this user may not even look: in the home that `runuser` or `setpriv` left in HOME."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _read_tree(path: Path, tree: Any) -> Contexts:
    if tree is None:
        return Contexts()
    if not isinstance(tree, dict) or set(tree) - {"current", "contexts"}:
        raise ContextsUnusable(f"{path}: no file of contexts: `current` and `contexts` stand in it")
    current, found = tree.get("current"), tree.get("contexts") or {}
    if not isinstance(found, dict) or not isinstance(current, str | None):
        raise ContextsUnusable(f"{path}: `contexts` is a map from name to context")
    contexts = Contexts(
        current, {str(name): _read_one(path, name, one) for name, one in found.items()}
    )
    if current is not None and current != HERE:
        contexts.find(current)
    return contexts


def _read_one(path: Path, name: str, tree: Any) -> Context:
    known = {item.name for item in fields(Context)}
    if not isinstance(tree, dict) or not isinstance(tree.get("server"), str):
        raise ContextsUnusable(f"{path}: the context {name!r} names no server")
    if unknown := sorted(set(map(str, tree)) - known):
        raise ContextsUnusable(
            f"{path}: the context {name!r} has {unknown[0]!r}, which means nothing"
            f"{did_you_mean(find_nearest(unknown[0], known))}"
        )
    values: dict[str, Any] = {}
    for key, value in tree.items():
        read = _read_switch(value) if key == "insecure_http" else value
        if not isinstance(read, bool if key == "insecure_http" else str):
            raise ContextsUnusable(f"{path}: `{key}` of the context {name!r} is of the wrong kind")
        values[key] = read
    return Context(**values)


def _read_switch(value: object) -> object:
    # what is unquoted comes as it was written
    return {"true": True, "false": False}.get(str(value), value)


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Replace the file, for the user's eyes alone.

    Raises:
        ContextsUnusable: it cannot be written; the old one stands.
    """
    # NB: texts as JSON writes them are texts in YAML, whatever they hold
    lines = [] if contexts.current is None else [f"current: {json.dumps(contexts.current)}\n"]
    lines.append("contexts:\n" if contexts.by_name else "contexts: {}\n")
    for name, context in sorted(contexts.by_name.items()):
        lines.append(f"  {json.dumps(name)}:\n")
        for item in fields(Context):
            value = getattr(context, item.name)
            if value not in (None, False):
                lines.append(f"    {item.name}: {json.dumps(value)}\n")
    _write(path, (_HEAD + "".join(lines)).encode())


def write_token(path: Path, token: str) -> None:
    """Keep a token in a file of its own, for the user's eyes alone. Raises as `write_contexts`."""
    _write(path, f"{token}\n".encode())


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, content)
    except OSError as error:
        raise ContextsUnusable(f"cannot write {path}: {error.strerror or error}") from error


def remove_token(path: Path) -> None:
    """Forget a token that was typed in."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _hint(name: str) -> str:
    """`-c` is an option of programs, too: of a shell above all."""
    is_command = not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return " (what is for a program or a method stands behind --)" if is_command else ""
