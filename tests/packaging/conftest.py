"""The files that are made from the commands, written once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    return found


@pytest.fixture(scope="package")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    done = subprocess.run(
        [
            *(sys.executable, str(PACKAGING / "manual.py")),
            *(str(root), "1.2.3", str(PACKAGING / "CHANGELOG.md")),
        ],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root
