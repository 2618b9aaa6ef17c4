"""REQTailFile on real files that grow, move, shrink, come and go."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import asynccontextmanager

import pytest

from appliance.errors import ArgumentsInvalid, CopyFailed, HandlerError, PathForbidden
from appliance.methods.files import tail as _tail
from appliance.methods.programs import chunks as _talk
from appliance.methods.programs.chunks import HELD_BYTES, PIECE_BYTES
from tests.support.waiting import until_async


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_tail, "POLL_S", 0.01)


@pytest.fixture
def look_twice(monkeypatch):
    """Waits until files were looked at twice more: by then one look has begun and ended after the call."""
    looks = 0
    look = _tail.FollowedFile.look

    def count(self, max_bytes):
        nonlocal looks
        found = look(self, max_bytes)
        looks += 1
        return found

    monkeypatch.setattr(_tail.FollowedFile, "look", count)

    async def wait():
        before = looks
        await until_async(lambda: looks >= before + 2)

    return wait


@pytest.fixture
def read_until_full(monkeypatch):
    """Waits until no more may be held, and tells how much was read for that: then the file is not looked at."""
    look = _tail.FollowedFile.look
    read_bytes = 0

    def count(self, max_bytes):
        nonlocal read_bytes
        found = look(self, max_bytes)
        read_bytes += len(found.data)
        return found

    monkeypatch.setattr(_tail.FollowedFile, "look", count)

    async def wait():
        await until_async(lambda: read_bytes >= HELD_BYTES)
        return read_bytes

    return wait


@pytest.fixture
def tail(bench, tmp_path):
    """Follow a file while the block runs; its result afterwards is in `found`."""
    bench.spec_fields["allow_paths"] = (f"{tmp_path}/**",)
    bench.timeout_s = 30.0

    @asynccontextmanager
    async def follow(path, *more):
        task = asyncio.create_task(
            bench.handle("REQTailFile", method_args=(str(path), *map(str, more)))
        )
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return follow


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("old 1\nold 2\n")
    return path


def write(path, text):
    with open(path, "a") as file:
        file.write(text)


async def settle(bench, log):
    """Until the tail is at the end of the file: what is written then is seen."""
    number = 0

    def is_seen():
        nonlocal number
        if not bench.said():
            number += 1
            write(log, f"sync {number}\n")
        return bench.said().endswith(f"sync {number}\n".encode())

    await bench.until(is_seen)
    bench.replies.clear()


async def test_new_lines_come_and_old_ones_do_not(bench, tail, log):
    async with tail(log):
        await settle(bench, log)
        write(log, "new 1\nnew 2\n")
        await bench.until(lambda: bench.said() == b"new 1\nnew 2\n")
        write(log, "new 3\n")
        await bench.until(lambda: bench.said() == b"new 1\nnew 2\nnew 3\n")
    assert all(stream == "stdout" for stream, _ in bench.replies)


async def test_the_end_of_the_time_is_no_error(bench, tail, log):
    bench.timeout_s = 0.2
    started = time.monotonic()
    result = await bench.handle("REQTailFile", method_args=(str(log),))
    assert time.monotonic() - started < 20
    assert (result.output, result.exit_status, result.report) == (b"", 0, None)
    assert not result.is_truncated
    assert bench.replies == []


@pytest.mark.parametrize(
    ("count", "seen"),
    [(0, b""), (1, b"c"), (2, b"b\nc"), (3, b"a\nb\nc"), (4, b"\na\nb\nc"), (9, b"\na\nb\nc")],
)
async def test_it_may_begin_with_the_last_lines(bench, tail, log, count, seen):
    log.write_bytes(b"\na\nb\nc")
    async with tail(log, "-n", count):
        if count:
            await bench.until(bench.said)
            write(log, "d\n")
            await bench.until(lambda: bench.said() == seen + b"d\n")
        else:
            await settle(bench, log)


def test_last_lines_of_large_files_are_found_from_the_end(tmp_path):
    path = tmp_path / "large"
    lines = [b"%d" % number * (number % 50) for number in range(20_000)]
    for ending in (b"\n", b""):
        path.write_bytes(b"\n".join(lines) + ending)
        with open(path, "rb") as file:
            whole = file.read()
            for count in (1, 2, 999, 15_000, 20_000, 30_000):
                begin = _tail.find_last_lines(file.fileno(), count)
                assert whole[begin:] == b"\n".join(lines[-count:]) + ending


def test_last_lines_are_not_looked_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(_tail, "_MAX_SEARCH_BYTES", 100_000)
    path = tmp_path / "one-line"
    path.write_bytes(b"x" * 1_000_000)
    with open(path, "rb") as file:
        assert 800_000 < _tail.find_last_lines(file.fileno(), 1) < 900_000


async def test_rotation_loses_nothing_of_the_old_file_and_nothing_of_the_new(
    bench, tail, log, look_twice
):
    async with tail(log):
        await settle(bench, log)
        expected = b""
        for turn in range(5):
            with open(log, "a") as old:
                old.write(f"{turn} before\n")
                old.flush()
                log.rename(log.with_suffix(f".{turn}"))
                log.touch()  # as logrotate does, before it tells the writer
                await look_twice()
                old.write(f"{turn} after the file was moved\n")
            write(log, f"{turn} new\n")
            expected += f"{turn} before\n{turn} after the file was moved\n{turn} new\n".encode()
            await bench.until(lambda expected=expected: bench.said() == expected)


async def test_deleted_and_made_again_it_is_read_from_its_start(bench, tail, log, look_twice):
    async with tail(log):
        await settle(bench, log)
        log.unlink()
        await look_twice()
        log.write_text("again\n")
        await bench.until(lambda: bench.said() == b"again\n")


async def test_truncated_it_is_read_from_its_start(bench, tail, log, look_twice):
    async with tail(log):
        await settle(bench, log)
        os.truncate(log, 0)
        await look_twice()
        write(log, "from the start\n")
        await bench.until(lambda: bench.said() == b"from the start\n")


async def test_written_anew_and_shorter_it_is_read_from_its_start(bench, tail, log):
    async with tail(log):
        await settle(bench, log)
        log.write_text("short\n")
        await bench.until(lambda: bench.said() == b"short\n")


@pytest.mark.parametrize("asker_is_appliance", [True, False])
async def test_a_file_that_is_not_there_yet_is_waited_for_and_read_whole(
    bench, tail, tmp_path, asker_is_appliance, look_twice
):
    bench.asker_is_appliance = asker_is_appliance
    path = tmp_path / "later" / "app.log"
    async with tail(path, "-n", 1) as task:
        if asker_is_appliance:  # a Go node would file the words among the file's lines
            await bench.until(lambda: bench.said("stderr").endswith(b"waiting for it\n"))
            assert str(path).encode() in bench.said("stderr")
        else:
            await look_twice()
        path.parent.mkdir()
        await look_twice()
        assert not task.done()
        path.write_text("one\ntwo\n")
        await bench.until(lambda: bench.said("stdout") == b"one\ntwo\n")
    assert bool(bench.said("stderr")) == asker_is_appliance


async def test_a_link_is_followed_to_its_new_target(bench, tail, tmp_path, log):
    link, other = tmp_path / "current", tmp_path / "b.log"
    link.symlink_to(log)
    async with tail(link):
        await settle(bench, log)
        other.write_text("other\n")
        (tmp_path / "next").symlink_to(other)
        (tmp_path / "next").rename(link)
        await bench.until(lambda: bench.said() == b"other\n")


async def test_a_link_that_comes_to_lead_out_ends_it_with_an_error(bench, tail, tmp_path, log):
    inside = tmp_path / "in"
    inside.mkdir()
    bench.spec_fields["allow_paths"] = (f"{inside}/*",)
    own = inside / "own.log"
    own.write_text("x\n")
    link = inside / "current"
    link.symlink_to(own)
    async with tail(link) as task:
        await settle(bench, own)
        (inside / "next").symlink_to(log)
        (inside / "next").rename(link)
        with pytest.raises(PathForbidden, match="not in allow_paths"):
            async with asyncio.timeout(60):
                await task
    assert bench.said() == b""


async def test_rights_that_a_new_file_gets_later_are_waited_for(bench, tail, log, monkeypatch):
    """Root reads everything, hence the refusal is made."""
    real_open, refused = _tail.open_source, []

    def refuse_twice(path, patterns):
        if len(refused) < 2 and bench.said():
            refused.append(path)
            raise CopyFailed(path, "permission denied") from PermissionError(13, "denied")
        return real_open(path, patterns)

    monkeypatch.setattr(_tail, "open_source", refuse_twice)
    async with tail(log):
        await settle(bench, log)
        write(log, "last\n")
        await bench.until(lambda: bench.said() == b"last\n")
        log.rename(log.with_suffix(".1"))
        log.write_text("next\n")
        await bench.until(lambda: bench.said() == b"last\nnext\n")
    assert len(refused) == 2


async def test_a_file_that_must_not_be_read_is_an_error_at_once(bench, tail, log, monkeypatch):
    def refuse(path, patterns):
        raise CopyFailed(path, "permission denied") from PermissionError(13, "denied")

    monkeypatch.setattr(_tail, "open_source", refuse)
    with pytest.raises(CopyFailed, match="permission denied"):
        await bench.handle("REQTailFile", method_args=(str(log),))


async def test_a_begun_line_comes_after_a_silence_and_long_ones_in_pieces(
    bench, tail, log, monkeypatch
):
    monkeypatch.setattr(_talk, "SILENCE_S", 0.05)
    async with tail(log):
        await settle(bench, log)
        write(log, "begun")
        await bench.until(lambda: bench.said() == b"begun")
        write(log, "x" * 300_000 + "\n")
        await bench.until(lambda: bench.said() == b"begun" + b"x" * 300_000 + b"\n")
    assert max(len(data) for _, data in bench.replies) <= PIECE_BYTES


async def test_an_absent_listener_costs_no_memory_and_misses_nothing(
    bench, tail, log, read_until_full
):
    async with tail(log) as task:
        await settle(bench, log)
        bench.listener = asyncio.Event()
        lines = "".join(f"{number:99}\n" for number in range(20_000))
        write(log, lines)
        assert await read_until_full() < 2 * HELD_BYTES
        assert not task.done()
        bench.listener.set()
        await bench.until(lambda: bench.said() == lines.encode())
    assert len(lines) > 10 * HELD_BYTES


async def test_what_an_absent_listener_missed_comes_with_the_end(bench, tail, log, monkeypatch):
    monkeypatch.setattr(_talk, "LAST_WORDS_S", 0.05)
    bench.listener = asyncio.Event()
    bench.timeout_s = 1.0  # long enough to read it on a busy machine
    result = await bench.handle("REQTailFile", method_args=(str(log), "-n", "2"))
    assert (result.output, result.is_truncated) == (b"old 1\nold 2\n", False)

    log.write_bytes(b"x\n" * HELD_BYTES)
    result = await bench.handle("REQTailFile", method_args=(str(log), "-n", "100000"))
    assert result.is_truncated


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "socket"])
async def test_only_regular_files_are_followed(bench, tail, tmp_path, kind):
    path = tmp_path / kind
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            bench.spec_fields["allow_paths"] = None
            path = "/dev/zero"
        else:
            listener.bind(str(path))
        with pytest.raises(PathForbidden, match=r"is a directory|is no regular file"):
            async with asyncio.timeout(60):
                await bench.handle("REQTailFile", method_args=(str(path),))


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("",), ("app.log",), ("/a\0b",), ("/a", "-f"), ("/a", "-n"), ("/a", "-n", "x")),
        *(("/a", "-n", "-1"), ("/a", "-n", "100001"), ("/a", "-n", "1", "2"), ("/\ud800",)),
    ],
)
async def test_other_arguments_are_refused(bench, tail, arguments):
    with pytest.raises(ArgumentsInvalid):
        await bench.handle("REQTailFile", method_args=arguments)


async def test_what_is_not_listed_is_refused_wherever_the_path_leads_by(bench, tail, tmp_path):
    secret, inside = tmp_path / "secret", tmp_path / "logs"
    secret.write_text("x\n")
    inside.mkdir()
    (inside / "link").symlink_to(secret)
    (tmp_path / "way").symlink_to(inside)
    bench.spec_fields["allow_paths"] = (f"{inside}/**",)
    for path in (secret, inside / "link", f"{inside}/../secret", "/etc/passwd"):
        with pytest.raises(PathForbidden, match="not in allow_paths"):
            await bench.handle("REQTailFile", method_args=(str(path),))
    # a way in counts by where it leads
    (inside / "own").write_text("x\n")
    bench.timeout_s = 0.1
    assert (
        await bench.handle("REQTailFile", method_args=(f"{tmp_path}/way/own",))
    ).exit_status == 0
    bench.spec_fields["allow_paths"] = ()
    with pytest.raises(PathForbidden):
        await bench.handle("REQTailFile", method_args=(str(inside / "own"),))


async def test_it_lets_go_of_its_file(bench, tail, log):
    def open_here():
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                continue
        return [path for path in found if path.startswith(str(log))]

    async with tail(log):
        await settle(bench, log)
        assert len(open_here()) == 1
    await bench.until(lambda: not open_here())


@pytest.mark.parametrize("listens", [True, False])
async def test_a_subscriber_that_leaves_ends_it_at_once_and_says_so(
    bench, tail, log, listens, monkeypatch
):
    monkeypatch.setattr(_talk, "LAST_WORDS_S", 0.05)
    if not listens:
        bench.listener = asyncio.Event()
    async with tail(log, "-n", 2) as task:
        await bench.until(lambda: bench.said() or not listens)
        bench.leaving.set()
        with pytest.raises(HandlerError, match="ended early"):
            async with asyncio.timeout(60):
                await task


def test_file_without_a_size_is_shown_when_it_says_something_else_and_not_without_end():
    with open("/proc/version", "rb") as file:
        said = file.read()
    for path in (
        "/proc/version",
        "/proc/uptime",
    ):  # one that stays, and one that is another each time
        file = _tail.FollowedFile(path, None)
        try:
            assert file.open_first(10)
            looks = [file.look(HELD_BYTES) for _ in range(50)]
        finally:
            file.close()
        assert looks[0].data
        assert path != "/proc/version" or looks[0].data == said
        assert not any(look.may_have_more for look in looks)
        assert len([look for look in looks if look.data]) == 1


def test_file_without_a_size_is_shown_again_when_its_time_has_come(monkeypatch):
    monkeypatch.setattr(_tail, "SIZELESS_POLL_S", 0.0)
    file = _tail.FollowedFile("/proc/uptime", None)
    try:
        assert file.open_first(0)
        seen = {file.look(HELD_BYTES).data}
        while len(seen) < 3:
            seen.add(file.look(HELD_BYTES).data)
    finally:
        file.close()
