"""What is wrong with the meaning of a config, named by key path; places in files are found by the
caller.

A finding may point at a second path ("declared at …"): `PLACE` in its texts is replaced by that
path's place.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.core.problems import Severity

KeyPath = tuple[str | int, ...]

PLACE = "\0place\0"
"""Stands in a finding's message or hint for the place of `also`; no config text can hold it."""

CASCADING = frozenset(
    {
        *("E201", "E206", "E207", "E208", "E212", "E214", "E220", "E231", "E236"),
        *("W201", "W202", "W203", "W204", "W205", "W206"),
    }
)
"""Codes that follow from what is *not* there. They are left out when parts of the config could not
be read, since
the missing part may be just the unreadable one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem of meaning. `on_key` asks for the place of the key, not of its value."""

    code: str
    path: KeyPath
    message: str
    hint: str = ""
    also: KeyPath | None = None
    on_key: bool = False

    @property
    def severity(self) -> Severity:
        """Told by the code's letter."""
        return Severity.WARNING if self.code.startswith("W") else Severity.ERROR


class Findings:
    """Collects findings; what a role brings to a hundred nodes is told once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, KeyPath, str], Finding] = {}

    def add(
        self,
        code: str,
        path: KeyPath,
        message: str,
        *,
        hint: str = "",
        also: KeyPath | None = None,
        on_key: bool = False,
    ) -> None:
        """Note one problem; a second one of the same code, path and text is the same problem."""
        finding = Finding(
            code=code, path=path, message=message, hint=hint, also=also, on_key=on_key
        )
        self._found.setdefault((code, path, message), finding)

    def __len__(self) -> int:
        return len(self._found)

    def all(self) -> tuple[Finding, ...]:
        """Everything noted, in the order of discovery."""
        return tuple(self._found.values())

    @property
    def has_errors(self) -> bool:
        """Whether the config must be refused."""
        return any(finding.severity is Severity.ERROR for finding in self._found.values())
