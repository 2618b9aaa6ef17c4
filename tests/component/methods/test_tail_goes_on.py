"""REQTailFile goes on behind what an earlier answer had told, whatever became of the file's name meanwhile."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from appliance.core.message import CALLER_FILE
from appliance.errors import ArgumentsInvalid
from appliance.methods.files import tail as _tail
from appliance.methods.files.places import Places, begin_run, find_rotated, read_place


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_tail, "POLL_S", 0.01)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("old 1\nold 2\n")
    return path


@pytest.fixture
def tail(bench, tmp_path):
    """Follow a file while the block runs, as an appliance for a caller; `allowed` may be another pattern."""
    bench.asker_is_appliance = True
    bench.timeout_s = 30.0

    @asynccontextmanager
    async def follow(path, *more, allowed="**"):
        bench.replies.clear()
        bench.places.clear()
        bench.spec_fields["allow_paths"] = (f"{tmp_path}/{allowed}",)
        task = asyncio.create_task(
            bench.handle(
                "REQTailFile", method_args=(str(path), *map(str, more)), file_name=CALLER_FILE
            )
        )
        try:
            await bench.until(lambda: bench.places or task.done())
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return follow


def write(path, text, at_s=None):
    with open(path, "a") as file:
        file.write(text)
    if at_s is not None:
        os.utime(path, (at_s, at_s))


async def place_after(bench, tail, log, text=""):
    """Where a tail has come to that was cut off behind `text`."""
    async with tail(log):
        write(log, text)
        await bench.until(lambda: bench.said("stdout") == text.encode())
        return bench.places[-1]


async def goes_on(bench, tail, log, place, wanted, **more):
    async with tail(log, "-a", place, **more):
        await bench.until(lambda: len(bench.said("stdout")) >= len(wanted))
        write(log, "after\n")
        await bench.until(lambda: bench.said("stdout").endswith(b"after\n"))
        assert bench.said("stdout").decode() == wanted + "after\n"
        return bench.said("stderr").decode()


@pytest.mark.parametrize("said", ["", "new 1\nnew 2\n", "no end yet", "ü" * 400 + "\n"])
async def test_what_was_written_meanwhile_comes_once(bench, tail, log, said):
    place = await place_after(bench, tail, log, said)
    write(log, "meanwhile 1\nmeanwhile 2\n")
    assert await goes_on(bench, tail, log, place, "meanwhile 1\nmeanwhile 2\n") == ""


async def test_a_file_that_was_rotated_meanwhile_is_read_to_its_end_first(bench, tail, log):
    place = await place_after(bench, tail, log, "new\n")
    write(log, "last of the old\n", at_s=1_000)
    os.rename(log, f"{log}.1")
    write(log, "first of the next\n")
    assert await goes_on(bench, tail, log, place, "last of the old\nfirst of the next\n") == ""


@pytest.mark.parametrize("style", ["numbers", "dates", "dates before the ending"])
async def test_files_that_were_rotated_one_after_the_other_come_in_order(bench, tail, log, style):
    names = {
        "numbers": ("app.log.2", "app.log.1"),
        "dates": ("app.log-20261128", "app.log-20261129"),
        "dates before the ending": ("app-2026-11-28.log", "app-2026-11-29.log"),
    }[style]
    (log.parent / "app.log.9").write_text("much older\n")
    os.utime(log.parent / "app.log.9", (10, 10))
    place = await place_after(bench, tail, log, "new\n")
    for number, name in enumerate(names):
        write(log, f"part {number}\n", at_s=1_000 + number)
        os.rename(log, log.parent / name)
    write(log, "part 2\n")
    assert await goes_on(bench, tail, log, place, "part 0\npart 1\npart 2\n") == ""


async def test_two_rotations_within_one_look_lose_nothing(bench, tail, log):
    async with tail(log):
        write(log, "a\n", at_s=1_000)
        os.rename(log, f"{log}.2")
        write(log, "b\n", at_s=1_001)
        os.rename(f"{log}", f"{log}.1")
        write(log, "c\n")
        await bench.until(lambda: bench.said("stdout") == b"a\nb\nc\n")


async def test_a_file_that_was_copied_and_cut_short_is_read_on_in_the_copy(bench, tail, log):
    place = await place_after(bench, tail, log, "new\n")
    write(log, "last of the old\n")
    (log.parent / "app.log.1").write_bytes(log.read_bytes())
    os.utime(log.parent / "app.log.1", (1_000, 1_000))
    log.write_text("")
    write(log, "first of the next\n")
    assert await goes_on(bench, tail, log, place, "last of the old\nfirst of the next\n") == ""


async def test_a_file_that_was_written_anew_is_read_from_its_beginning_and_that_is_told(
    bench, tail, log
):
    place = await place_after(bench, tail, log, "new\n")
    log.write_text("something else, and longer than what stood there\n")
    told = await goes_on(
        bench, tail, log, place, "something else, and longer than what stood there\n"
    )
    assert "lines may be missing" in told


async def test_what_was_rotated_to_where_nobody_may_read_is_told_as_missing(bench, tail, log):
    place = await place_after(bench, tail, log, "new\n")
    write(log, "secret\n")
    os.rename(log, f"{log}.1")
    write(log, "next\n")
    told = await goes_on(bench, tail, log, place, "next\n", allowed="app.log")
    assert "lines may be missing" in told


async def test_a_place_that_is_none_is_refused(bench, tail, log):
    async with tail(log, "-a", "../../etc/passwd") as task:
        with pytest.raises(ArgumentsInvalid):
            await task


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.zzzzzzzz", "1.2.3.300.00000000", "1.2.3.4.00000000", "1" * 300]
)
def test_words_that_name_no_place(text):
    assert read_place(text) is None


def test_the_place_behind_what_was_said_is_that_of_the_file_it_is_from(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x" * 300)
    second.write_bytes(b"y" * 10)
    places = Places()
    with open(first, "rb") as one, open(second, "rb") as other:
        places.read(begin_run(one.fileno(), 280), 20)
        places.read(begin_run(other.fileno(), 0), 10)
        within = read_place(places.say(b"x" * 15))
        assert within.offset == 295
        assert within.is_file(one.fileno())
        assert within.is_in(one.fileno())
        across = read_place(places.say(b"x" * 5 + b"y" * 4))
        assert across.offset == 4
        assert across.is_file(other.fileno())
        assert across.is_in(other.fileno())
        assert not across.is_in(one.fileno())


def test_files_of_other_names_and_packed_ones_are_not_what_was_rotated(tmp_path):
    names = "app.log app.log.1 app.log.2.gz app.log.err app.log.old app-1.log app.logs other.log.1"
    for number, name in enumerate(names.split()):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (number, number))
    found = [path.rpartition("/")[2] for path in find_rotated(str(tmp_path / "app.log"))]
    assert found == ["app.log.1", "app.log.old", "app-1.log"]
