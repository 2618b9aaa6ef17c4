"""Paths of a peer's choice: what the system refuses is said in its words, and is never an internal error."""

import time

import pytest

from appliance.errors import CopyFailed, PathForbidden
from appliance.methods.base import WriteRights
from appliance.methods.copies.receiver import CopyTaker
from appliance.methods.files.paths import open_socket, open_source, open_target


@pytest.mark.parametrize("open_path", [open_source, open_socket, open_target])
@pytest.mark.parametrize("name", ["x" * 256, "x" * 256 + "/f"], ids=["name", "directory"])
def test_a_name_that_is_too_long_is_refused_in_the_systems_words(tmp_path, open_path, name):
    with pytest.raises(CopyFailed, match="file name too long"):
        open_path(f"{tmp_path}/{name}", None)


async def test_the_longest_name_that_the_system_takes_can_be_copied_to(tmp_path):
    taker = CopyTaker(tmp_path / "notes", now=time.time)
    path = tmp_path / ("x" * 255)
    rights = WriteRights(allow_paths=None, max_bytes=100)
    await taker.take_file(str(path), b"content", None, "ship1", rights)
    await taker.close()
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("patterns", [None, ["/proc/**"]])
@pytest.mark.parametrize(
    "name", ["/proc/self/environ", "/proc/self/mem", "/proc/thread-self/environ"]
)
def test_what_the_kernel_tells_of_a_process_is_no_file(patterns, name):
    with pytest.raises(PathForbidden, match="of a process"):
        open_source(name, patterns)
