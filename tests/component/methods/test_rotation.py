"""Files that messages add to begin anew when the config says so, and nothing of what was added is lost by it."""

from __future__ import annotations

import asyncio
import os

import pytest

from appliance.core.current import Current
from appliance.core.specs import FileSettings
from appliance.methods.files.data_dir import DataFiles
from appliance.methods.files.rotation import Rotation, find_predecessors, move_aside, predecessor

PARTS = ("logs", "ship1", "all.log")
DAY_S = 86_400.0


async def nothing(_position):
    pass


def files_below(root):
    path = root.joinpath(*PARTS)
    return [one.read_text() for one in (path, *map(type(path), find_predecessors(str(path))))]


async def test_a_file_that_would_grow_beyond_its_bound_is_moved_aside_and_the_oldest_goes(tmp_path):
    settings = Current(FileSettings(max_bytes=10, keep_files=2))
    async with DataFiles(tmp_path, settings) as files:
        for number in range(5):
            await files.append(PARTS, f"line {number}\n".encode(), resume=None, intend=nothing)
        assert files_below(tmp_path) == ["line 4\n", "line 3\n", "line 2\n"]
        # in force at once, and back
        settings.put(FileSettings())
        await files.append(PARTS, b"more\n", resume=None, intend=nothing)
        assert files_below(tmp_path)[0] == "line 4\nmore\n"


async def test_appends_at_the_same_time_lose_nothing(tmp_path):
    settings = Current(FileSettings(max_bytes=4_096, keep_files=1_000))
    async with DataFiles(tmp_path, settings) as files:
        lines = [f"line {number} {'x' * (number % 97)}\n" for number in range(2_000)]
        await asyncio.gather(
            *(files.append(PARTS, line.encode(), resume=None, intend=nothing) for line in lines)
        )
    parts = files_below(tmp_path)
    assert len(parts) > 1
    assert "".join(reversed(parts)).splitlines(keepends=True) == lines


async def test_a_message_larger_than_the_bound_gets_a_file_of_its_own(tmp_path):
    settings = Current(FileSettings(max_bytes=10, keep_files=5))
    async with DataFiles(tmp_path, settings) as files:
        for text in ("a\n", "b" * 50 + "\n", "c\n"):
            await files.append(PARTS, text.encode(), resume=None, intend=nothing)
    assert files_below(tmp_path) == ["c\n", "b" * 50 + "\n", "a\n"]


async def test_a_file_begins_anew_with_the_first_message_of_the_next_day(tmp_path):
    now = 20_000 * DAY_S + 60
    settings = Current(FileSettings(every_s=DAY_S))
    async with DataFiles(tmp_path, settings) as files:
        files._files._wall = lambda: now
        path = tmp_path.joinpath(*PARTS)
        for text, at in (("a\n", now - 120), ("b\n", now), ("c\n", now + 5)):
            await files.append(PARTS, text.encode(), resume=None, intend=nothing)
            os.utime(path, (at, at))
        assert files_below(tmp_path) == ["b\nc\n", "a\n"]


@pytest.mark.parametrize(
    ("written_at", "now", "is_due"),
    [
        (DAY_S - 1, DAY_S, True),
        (DAY_S, 2 * DAY_S - 1, False),
        (3 * DAY_S, DAY_S, False),  # the clock was set back
        (0, 40 * DAY_S, True),
    ],
)
def test_the_next_day_begins_at_midnight(written_at, now, is_due):
    assert Rotation(every_s=DAY_S).is_due(10, 1, written_at, now) is is_due


def test_an_empty_file_and_nothing_to_add_are_no_reason():
    rotation = Rotation(max_bytes=10, every_s=DAY_S)
    assert not rotation.is_due(0, 50, 0, 9 * DAY_S)
    assert not rotation.is_due(50, 0, 0, 9 * DAY_S)


def test_a_rotation_that_was_cut_off_is_made_good_by_the_next_without_losing_a_file(tmp_path):
    for name, text in (("log", "new"), ("log.2", "older"), ("log.3", "oldest")):
        (tmp_path / name).write_text(text)  # killed when log.1 had got its next name
    directory_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        move_aside(directory_fd, b"log", 3)
    finally:
        os.close(directory_fd)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"log.1": "new", "log.2": "older", "log.3": "oldest"}


def test_a_long_name_has_room_for_its_number():
    assert len(predecessor(b"x" * 255, 12)) <= 255
    assert predecessor(b"x" * 255, 12).endswith(b".12")
