"""Loading configs in tests, and what the battery of bad ones expects."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from appliance.config.loader import LoadedConfig, load_desired
from appliance.core.problems import Problem
from appliance.core.specs import DesiredState
from appliance.errors import ConfigInvalid
from appliance.methods.registry import METHOD_TABLE

ROOT = Path(__file__).resolve().parents[2]
BATTERY = ROOT / "tests" / "configs_bad"
WARNINGS = ROOT / "tests" / "configs_warn"
ENVIRON = {"HOME": "/home/someone"}

Expected = list[tuple[str, str, str]]
"""Code, file below the battery's entry ("" for itself), ``line:column``."""

_EXPECT = re.compile(r"# expect: ([EW]\d{3}) (\d+:\d+)")


def battery() -> list[Path]:
    """Every entry of the battery of refused configs: files, and directories."""
    return sorted(BATTERY.iterdir())


def expected_of(entry: Path) -> Expected:
    """What an entry of the battery says about itself."""
    if entry.is_dir():
        code, file, place = (entry / "expect.txt").read_text().split()
        return [(code, file, place)]
    raw = entry.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1")
    return [(code, ".", place) for code, place in _EXPECT.findall(text)]


def found_in(entry: Path, problems: tuple[Problem, ...]) -> Expected:
    """Problems in the same form."""
    return sorted(
        (
            problem.code,
            os.path.relpath(problem.file, entry),
            f"{problem.line}:{problem.column}",
        )
        for problem in problems
    )


def load(*paths: Path, environ: Mapping[str, str] = ENVIRON, **options: object) -> LoadedConfig:
    """Load with the real methods."""
    return load_desired(list(paths), environ=environ, methods=METHOD_TABLE, **options)  # type: ignore[arg-type]


def load_text(directory: Path, text: str, **options: object) -> LoadedConfig:
    """Load a config given as text."""
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, **options)  # type: ignore[arg-type]


def desired_of(directory: Path, text: str) -> DesiredState:
    """The desired state of a text that is a good config."""
    return load_text(directory, text).desired


def problems_of(directory: Path, text: str, **options: object) -> tuple[Problem, ...]:
    """The problems of a text that is refused."""
    try:
        load_text(directory, text, **options)
    except ConfigInvalid as error:
        return error.problems
    raise AssertionError("the config was accepted")
