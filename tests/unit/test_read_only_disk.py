"""A disk that takes no writes is known by trying, since a mount that the kernel has closed still calls itself writable."""

import errno
import os

import pytest

from appliance.durable_file import takes_no_writes


def test_a_disk_that_takes_writes_is_left_as_it_was(tmp_path):
    assert not takes_no_writes(tmp_path)
    assert os.listdir(tmp_path) == []
    assert not takes_no_writes(tmp_path / "missing")


@pytest.mark.parametrize(
    ("number", "is_read_only"),
    [(errno.EROFS, True), (errno.ENOSPC, False), (errno.EACCES, False), (errno.EOPNOTSUPP, False)],
)
def test_what_the_kernel_says_to_a_try_decides(tmp_path, monkeypatch, number, is_read_only):
    def refuse(_path, flags, *_mode):
        assert flags & os.O_TMPFILE == os.O_TMPFILE
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    assert takes_no_writes(tmp_path) is is_read_only
