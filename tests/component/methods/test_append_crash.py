"""Appends are exactly once, whatever is killed when."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from appliance.methods.files.rotation import find_predecessors
from tests.component.methods.append_child import PARTS, make_line, read_journal
from tests.support.waiting import at_a_random_moment

CHILD = Path(__file__).with_name("append_child.py")


def run_child(
    folder: Path, seed: int, new_count: int, chance: random.Random | None, max_bytes: int
) -> None:
    """Start it, and kill it at a moment that `chance` gives; without one it ends by itself."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(seed), str(new_count), str(max_bytes)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    if chance is not None:
        at_a_random_moment(chance, 0.0, 0.08)
        child.kill()
    child.communicate()
    if chance is None:
        assert child.returncode == 0


def accepted_numbers(folder: Path) -> list[int]:
    lines = (folder / "journal").read_text().splitlines()
    return [int(line[2:]) for line in lines if line.startswith("a ")]


@pytest.mark.parametrize(("max_bytes", "count"), [(0, 16), (1_000_000, 10)])
def test_every_accepted_message_stands_in_a_file_once_after_many_kills(tmp_path, max_bytes, count):
    chance = random.Random(4)
    for seed in itertools.count(1):
        run_child(tmp_path, seed, 100_000, chance, max_bytes)
        # where the machine is busy each comes less far before its end
        if seed >= count and len(accepted_numbers(tmp_path)) > 100:
            break
    run_child(tmp_path, 0, 0, None, max_bytes)

    _, unfinished = read_journal(tmp_path / "journal")
    assert unfinished == {}
    numbers = accepted_numbers(tmp_path)
    path = (tmp_path / "data").joinpath(*PARTS)
    files = [path, *map(Path, find_predecessors(str(path)))]
    assert (len(files) > 1) == bool(max_bytes)
    content = b"".join(file.read_bytes() for file in files)
    lines = content.splitlines(keepends=True)
    numbers_found = [int(line.removeprefix(b"<").split(b" ")[0]) for line in lines]
    assert Counter(numbers_found) == Counter(numbers)
    assert lines == list(map(make_line, numbers_found))
