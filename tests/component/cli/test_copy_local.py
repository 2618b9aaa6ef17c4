"""The files on this side of `cp`: read as they were, written whole or not at all."""

import hashlib
import io
import os
import random
import threading

import pytest

from appliance.cli.copy_local import (
    BLOCK_BYTES,
    LocalFailed,
    LocalSource,
    check_writable,
    write_file,
)

DATA = random.Random(5).randbytes(3 * BLOCK_BYTES + 7)
NOBODY = 65_534
SHA256 = hashlib.sha256(DATA).hexdigest()


class Content(io.BytesIO):
    """What comes from the daemon; `then` happens before the last block."""

    def __init__(self, data, then=lambda: None):
        super().__init__(data)
        self._then = then

    def read(self, amount=-1):
        block = super().read(amount)
        if self.tell() == len(self.getbuffer()):
            self._then()
        return block


def read(path, told=None):
    source = LocalSource(str(path))
    try:
        data = b"".join(
            source.blocks(
                lambda done, total: told.append((done, total)) if told is not None else None
            )
        )
        return data, source.sha256
    finally:
        source.close()


def test_a_file_is_read_in_blocks_and_hashed_on_the_way(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    told = []
    assert read(tmp_path / "file", told) == (DATA, SHA256)
    assert told[-1] == (len(DATA), len(DATA))
    assert len(told) == 4


def test_a_file_that_grows_is_read_as_it_was(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(DATA)
    source = LocalSource(str(file))
    with file.open("ab") as more:
        more.write(b"more")
    assert b"".join(source.blocks(lambda *_: None)) == DATA
    source.close()


@pytest.mark.parametrize(
    "path",
    [
        "/proc/version",
        "/proc/sys/kernel/hostname",
        "/proc/filesystems",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ],
)
def test_a_file_of_the_kernel_is_read_whole_whatever_size_it_tells(path):
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    with open(path, "rb") as file:
        assert read(path)[0] == file.read() != b""


def test_a_file_full_of_holes_is_read_whole(tmp_path):
    file = tmp_path / "holes"
    with file.open("wb") as made:
        made.truncate(9_000_000)
    assert read(file)[0] == bytes(9_000_000)


def test_a_file_that_shrinks_is_told(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(DATA)
    source = LocalSource(str(file))
    os.truncate(file, 10)
    with pytest.raises(LocalFailed, match="file: it changed while it was read"):
        list(source.blocks(lambda *_: None))
    source.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "missing: no such file or directory"),
        ("directory", "directory: it is a directory; regular files are copied"),
        ("pipe", "pipe: it is no regular file"),
        ("loop", "loop: too many levels of symbolic links"),
        ("file/below", "below: not a directory"),
    ],
)
def test_what_is_no_file_is_told_and_nothing_hangs(tmp_path, name, said):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LocalFailed, match=said):
        LocalSource(str(tmp_path / name))


def test_a_file_is_written_whole_and_then_has_its_name(tmp_path):
    target = tmp_path / "target"
    target.write_text("old")
    seen = []

    def look():
        seen.append((target.read_text(), len(os.listdir(tmp_path))))

    assert write_file(str(target), Content(DATA, look), SHA256) == len(DATA)
    assert ("old", 2) in seen
    assert target.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["target"]


def test_a_new_file_is_as_the_umask_says_and_an_old_one_keeps_its_mode(tmp_path):
    previous = os.umask(0o027)
    try:
        write_file(str(tmp_path / "new"), Content(DATA), SHA256)
    finally:
        os.umask(previous)
    (tmp_path / "old").touch(0o600)
    (tmp_path / "old").chmod(0o4710)
    write_file(str(tmp_path / "old"), Content(DATA), SHA256)
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("new", "old")]
    assert modes == [0o640, 0o710]


@pytest.mark.parametrize("sha256", ["", "0" * 64, SHA256.upper()])
def test_what_is_not_what_was_sent_replaces_nothing(tmp_path, sha256):
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(LocalFailed, match="target: what arrived is not what was sent"):
        write_file(str(target), Content(DATA), sha256)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_broken_off_it_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    target = tmp_path / "target"
    target.write_text("old")

    def break_off():
        raise error

    with pytest.raises((KeyboardInterrupt, LocalFailed)):
        write_file(str(target), Content(DATA, break_off), SHA256)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]


def test_links_are_followed_to_what_they_name(tmp_path):
    (tmp_path / "link").symlink_to("real")
    write_file(str(tmp_path / "link"), Content(DATA), SHA256)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == DATA


def test_a_pipe_gets_the_bytes_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_file(str(pipe), Content(DATA), SHA256)
    reader.join(10)
    assert got == [DATA]
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("directory", "directory: it is a directory"),
        ("missing/file", "missing/file: its directory does not exist"),
        ("file/below", "file/below: its directory does not exist"),
    ],
)
def test_what_could_not_be_written_is_known_before_it_is_fetched(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(LocalFailed, match=said):
        check_writable(name)


def test_what_can_be_written_is_not_complained_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("not-there-yet")
    os.mkfifo(tmp_path / "pipe")
    for name in ("new", "./new", "link", "pipe", "/dev/null"):
        check_writable(name)


def test_a_directory_without_the_right_to_write_is_known_before(short_dir):
    short_dir.chmod(0o755)
    (short_dir / "closed").mkdir()
    (short_dir / "closed").chmod(0o555)
    child = os.fork()
    if child == 0:  # as somebody whom rights concern, whoever runs the tests
        said = ""
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            check_writable(str(short_dir / "closed" / "file"))
        except LocalFailed as error:
            said = str(error)
        finally:
            os._exit(0 if said.endswith("no permission to write in its directory") else 1)
    assert os.waitpid(child, 0)[1] == 0
