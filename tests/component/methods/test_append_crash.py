"""Appends are exactly once, whatever is killed when."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from append_child import PARTS, make_line, read_journal

CHILD = Path(__file__).with_name("append_child.py")


def run_child(folder: Path, seed: int, new_count: int, kill_after_s: float | None) -> None:
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(seed), str(new_count)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    if kill_after_s is not None:
        time.sleep(kill_after_s)  # the moment of the kill is what is varied here
        child.kill()
    child.communicate()
    if kill_after_s is None:
        assert child.returncode == 0


def accepted_numbers(folder: Path) -> list[int]:
    lines = (folder / "journal").read_text().splitlines()
    return [int(line[2:]) for line in lines if line.startswith("a ")]


def test_every_accepted_message_stands_in_the_file_once_after_many_kills(tmp_path):
    chance = random.Random(4)
    for seed in range(16):
        run_child(tmp_path, seed, 100_000, chance.uniform(0.0, 0.08))
    run_child(tmp_path, 0, 0, None)

    _, unfinished = read_journal(tmp_path / "journal")
    assert unfinished == {}
    numbers = accepted_numbers(tmp_path)
    assert len(numbers) > 100
    content = (tmp_path / "data").joinpath(*PARTS).read_bytes()
    lines = content.splitlines(keepends=True)
    found = Counter(int(line.split(b" ")[0]) for line in lines)
    assert found == Counter(numbers)
    assert all(line == make_line(int(line.split(b" ")[0])) for line in lines)
