"""A copy from end to end: REQCopyFileFrom here, REQCopyFileTo and REQCopyFileChunk there, the wire between them."""

from __future__ import annotations

import hashlib
import os

import pytest

from appliance.core.copying import (
    COPY_FROM,
    COPY_TO,
    MAX_WHOLE_BYTES,
    PIECE_BYTES,
    SHA256_HEADER,
)
from appliance.core.retry import NO_BROKER, NOBODY_THERE
from appliance.errors import ArgumentsInvalid, CopyFailed, HandlerError, PathForbidden
from appliance.methods.copies import sender as _copy_sender
from tests.component.methods.copy_pair import write_random
from tests.support.waiting import turns

BYTES = bytes(range(256)) + b"\xff\xfe\0"


@pytest.mark.parametrize(
    "encoding", [("cbor", "none"), ("cbor", "zstd"), ("gob", "none"), ("gob", "zstd")]
)
@pytest.mark.parametrize(
    "size", [0, 1, 1_000, MAX_WHOLE_BYTES, MAX_WHOLE_BYTES + 1, 4 * PIECE_BYTES, 10 * PIECE_BYTES + 77]
)  # fmt: skip
async def test_any_bytes_arrive_as_they_are(pair, encoding, size):
    pair.encoding = encoding
    source = pair.here / "source"
    data = (BYTES * (size // len(BYTES) + 1))[:size]
    source.write_bytes(data)
    copied = await pair.copy(source)
    assert (pair.there / "copied").read_bytes() == data
    assert copied == (size, hashlib.sha256(data).hexdigest(), True)
    assert pair.parts == []


async def test_what_fits_one_message_goes_as_the_seed_sends_it(pair):
    source = pair.here / "source"
    write_random(source, MAX_WHOLE_BYTES)
    await pair.copy(source)
    (outgoing,) = pair.sender.delivered
    message = outgoing.message
    assert message.method == COPY_TO
    assert (message.directory, message.file_name) == (str(pair.there), "@caller")
    assert message.method_args == (str(source), "central", f"{pair.there}/copied")
    assert set(outgoing.headers) == {SHA256_HEADER}
    assert len(message.data) == 1


async def test_for_a_go_node_that_asks_a_file_goes_in_its_name(pair):
    pair.sender.asker_is_appliance = False
    (pair.here / "source").write_bytes(b"x")
    await pair.copy(pair.here / "source")
    (outgoing,) = pair.sender.delivered
    assert outgoing.in_name_of == "central"
    assert (outgoing.message.directory, outgoing.message.file_name) == (str(pair.there), "copied")


async def test_a_receiver_that_takes_nothing_of_the_asker_is_asked_in_the_own_name(pair):
    async def refuse_the_asker(_method, _offset):
        if pair.sender.delivered[-1].in_name_of:
            raise HandlerError("sender 'central' is not in accept_from")

    pair.sender.asker_is_appliance = False
    pair.before = refuse_the_asker
    (pair.here / "source").write_bytes(b"x")
    await pair.copy(pair.here / "source")
    assert (pair.there / "copied").read_bytes() == b"x"
    assert [outgoing.in_name_of for outgoing in pair.sender.delivered] == ["central", ""]


async def test_the_first_piece_and_the_last_go_alone_and_a_window_of_them_between(pair):
    write_random(pair.here / "source", 20 * PIECE_BYTES + 1)
    seen: list[tuple[int, int]] = []

    async def before(_method, offset):
        seen.append((offset, pair.in_flight))
        await turns(20)  # so that all who may be on their way at once are

    pair.before = before
    await pair.copy(pair.here / "source")
    assert seen[0] == (0, 1)
    assert seen[-1] == (20 * PIECE_BYTES, 1)
    assert pair.most_in_flight == _copy_sender.WINDOW
    assert sorted(offset for offset, _ in seen) == [n * PIECE_BYTES for n in range(21)]


async def test_progress_is_told_and_ends_with_all_of_it(pair):
    size = 8 * PIECE_BYTES
    write_random(pair.here / "source", size)
    await pair.copy(pair.here / "source")
    done = [step for step, _ in pair.sender.steps]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, size)
    assert {total for _, total in pair.sender.steps} == {size}


async def test_a_small_broker_makes_small_pieces(pair):
    pair.sender.max_payload_bytes = pair.receiver.max_payload_bytes = 16_384
    data = write_random(pair.here / "source", 100_000)
    await pair.copy(pair.here / "source")
    assert (pair.there / "copied").read_bytes() == data
    assert len(pair.sender.delivered) >= 10


async def test_a_broker_that_is_too_small_is_told(pair):
    pair.sender.max_payload_bytes = 2_500
    write_random(pair.here / "source", 10_000)
    with pytest.raises(HandlerError, match="takes no messages large enough"):
        await pair.copy(pair.here / "source")


async def test_a_file_of_the_kernel_that_tells_no_size_is_copied(pair):
    pair.sender.spec_fields["allow_paths"] = ("/proc/**",)
    copied = await pair.copy("/proc/version")
    assert copied.size > 10
    assert (pair.there / "copied").read_bytes().startswith(b"Linux")


async def test_a_log_that_grows_is_copied_as_it_was_at_the_beginning(pair):
    source = pair.here / "log"
    data = write_random(source, 6 * PIECE_BYTES + 5)

    async def grow(_method, _offset):
        with source.open("ab") as file:
            file.write(b"another line\n")

    pair.before = grow
    copied = await pair.copy(source)
    assert copied.size == len(data)
    assert (pair.there / "copied").read_bytes() == data


async def test_a_file_that_changes_while_it_is_sent_replaces_nothing(pair):
    source, target = pair.here / "source", pair.there / "copied"
    write_random(source, 6 * PIECE_BYTES)
    target.write_text("old")

    async def change(_method, offset):
        if offset == 0:
            with source.open("r+b") as file:
                file.seek(4 * PIECE_BYTES)
                file.write(b"changed")

    pair.before = change
    with pytest.raises(HandlerError, match="source: it changed while it was copied, or on the way"):
        await pair.copy(source)
    assert target.read_text() == "old"
    assert pair.parts == []


async def test_a_file_that_shrinks_is_told(pair):
    source = pair.here / "source"
    write_random(source, 8 * PIECE_BYTES)

    async def shrink(_method, _offset):
        os.truncate(source, PIECE_BYTES)

    pair.before = shrink
    with pytest.raises(CopyFailed, match="it changed while it was copied"):
        await pair.copy(source)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("missing", CopyFailed, "no such file or directory"),
        ("missing/below", CopyFailed, "no such file or directory"),
        ("directory", PathForbidden, "is a directory"),
        ("pipe", PathForbidden, "is no regular file"),
        ("to-outside", PathForbidden, r"to-outside \(.*secret\) is not in allow_paths"),
        ("../secret", PathForbidden, "is not in allow_paths"),
    ],
)
async def test_what_cannot_be_read_is_told_by_its_reason(pair, tmp_path, name, error, said):
    (tmp_path / "secret").write_text("secret")
    (pair.here / "directory").mkdir()
    os.mkfifo(pair.here / "pipe")
    (pair.here / "to-outside").symlink_to(tmp_path / "secret")
    with pytest.raises(error, match=said):
        await pair.copy(pair.here / name)
    assert pair.sender.delivered == []


async def test_a_file_over_the_limit_of_either_side_is_not_begun_or_refused(pair):
    write_random(pair.here / "source", 2_000_000)
    pair.sender.spec_fields["max_file_bytes"] = 1_999_999
    with pytest.raises(CopyFailed, match="2000000 bytes exceed max_file_bytes of 1999999"):
        await pair.copy(pair.here / "source")
    pair.sender.spec_fields["max_file_bytes"] = 2_000_000
    pair.receiver.spec_fields["max_file_bytes"] = 1_999_999
    with pytest.raises(HandlerError, match=r"central refused it: .* 2000000 bytes exceed"):
        await pair.copy(pair.here / "source")
    assert list(pair.there.iterdir()) == []


@pytest.mark.parametrize("size", [100, 2_000_000])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/etc/never", "central refused it: /etc/never is not in allow_paths"),
        ("there/directory", "is a directory: name the file in it"),
        ("there/pipe", "is no regular file"),
        ("there/link", "is no regular file"),
        ("there/file/below", "not a directory"),
        ("there-not/file", r"its directory does not exist \(cp --mkdir makes it\)"),
        ("relative", "is no absolute path"),
        ("there/", "names no file"),
    ],
)
async def test_what_cannot_be_written_is_told_by_the_reason_of_the_receiver(
    pair, tmp_path, target, said, size
):
    write_random(pair.here / "source", size)
    (pair.there / "directory").mkdir()
    os.mkfifo(pair.there / "pipe")
    (pair.there / "link").symlink_to("/etc/passwd")
    (pair.there / "file").touch()
    pair.receiver.spec_fields["allow_paths"] += (f"{tmp_path}/there-not/**",)
    path = f"{tmp_path}/{target}" if target.startswith("there") else target
    with pytest.raises(HandlerError, match=said):
        await pair.copy(pair.here / "source", path)
    assert pair.parts == []


@pytest.mark.parametrize(
    "arguments", [None, (), ("/a",), ("/a", "central"), ("/a", "", "/b"), ("/a", "no node", "/b")]
)
async def test_arguments_that_are_missing_or_none_are_told(pair, arguments):
    with pytest.raises(ArgumentsInvalid):
        await pair.sender.handle(COPY_FROM, method_args=arguments)


async def test_a_receiver_that_is_away_is_told_from_one_that_fell_silent(pair):
    write_random(pair.here / "small", 10)
    write_random(pair.here / "large", 8 * PIECE_BYTES)
    pair.sender.deliver_error = f"expired after 10 s without acknowledgement: {NOBODY_THERE}"
    with pytest.raises(
        HandlerError, match=r"nobody took .*copied at central in time: the node is away, or does"
    ):
        await pair.copy(pair.here / "small")
    with pytest.raises(
        HandlerError, match=r"nobody took .* is no appliance, which files larger than 1000000"
    ):
        await pair.copy(pair.here / "large")
    pair.sender.deliver_error = f"expired after 10 s without acknowledgement: {NO_BROKER}"
    with pytest.raises(HandlerError, match="in time: there is no connection to the broker"):
        await pair.copy(pair.here / "small")
    words = 'Permissions Violation for Publish to "central.REQCopyFileTo.EventACK"'
    pair.sender.deliver_error = f"expired: no acknowledgement within 10 s: denied: {words}"
    with pytest.raises(HandlerError, match=f"nobody took .* in time: denied: {words}"):
        await pair.copy(pair.here / "small")
    pair.sender.deliver_error = None

    async def fall_silent(_method, offset):
        if offset:
            raise HandlerError("expired after 900 s without acknowledgement")

    pair.before = fall_silent
    with pytest.raises(
        HandlerError, match="no acknowledgement came; the node took a part and is silent since"
    ):
        await pair.copy(pair.here / "large")


async def test_what_stands_at_the_target_keeps_its_mode_and_loses_its_other_names(pair):
    for size in (100, 2_000_000):
        data = write_random(pair.here / "source", size)
        target, other = pair.there / f"copied-{size}", pair.there / f"other-{size}"
        target.write_text("old")
        target.chmod(0o4755)
        os.link(target, other)
        await pair.copy(pair.here / "source", str(target))
        assert target.read_bytes() == data
        assert target.stat().st_mode & 0o7777 == 0o755
        assert other.read_text() == "old"


async def test_missing_directories_are_made_only_where_allow_paths_has_them(pair, tmp_path):
    write_random(pair.here / "source", 100)
    pair.receiver.spec_fields["allow_paths"] += (f"{tmp_path}/there-not/**",)
    with pytest.raises(HandlerError, match="does not exist, and is not in allow_paths to be made"):
        await pair.copy(pair.here / "source", f"{tmp_path}/there-not/file", "mkdir")
    assert not (tmp_path / "there-not").exists()


async def test_a_new_file_is_for_its_owner_alone_and_so_are_directories_that_are_made(pair):
    for size in (100, 2_000_000):
        write_random(pair.here / "source", size)
        target = pair.there / f"new-{size}" / "below" / "copied"
        with pytest.raises(HandlerError, match="does not exist"):
            await pair.copy(pair.here / "source", str(target))
        assert list(pair.there.iterdir()) == [] or size > 100
        await pair.copy(pair.here / "source", str(target), "mkdir")
        assert target.stat().st_mode & 0o7777 == 0o600
        assert target.parent.stat().st_mode & 0o7777 == 0o700
