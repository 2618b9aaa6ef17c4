"""What the source says of itself, parsed once for all tests that read it.

Tests that do are of one xdist group, `GROUP`: each process would parse everything anew.
"""

from __future__ import annotations

import ast
import functools
import gc
from pathlib import Path

import pytest

import appliance

APPLIANCE = Path(appliance.__file__).parent
TESTS = Path(__file__).parents[1]
GROUP = pytest.mark.xdist_group("source_trees")


@functools.cache
def trees_below(root: Path) -> dict[Path, ast.Module]:
    """The tree of every module below a directory, by its path, in order."""
    # half a million objects that stay: each collection would look at all of them, again and again while they are made
    gc.disable()
    try:
        return {path: ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}
    finally:
        gc.freeze()
        gc.enable()
