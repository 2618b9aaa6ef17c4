"""A process that appends until it is killed. `test_append_crash` starts it again and again.

Its journal stands for the inbox: ``a id`` accepted, ``i id offset path length inode`` intended, ``d id``
done, each a line written at once (a kill -9 takes nothing that the kernel has). Started anew, it
runs again whatever is not done, in random order and mixed with new messages, which is worse than
any order the daemon would choose. Its disk is slow: it takes large writes in pieces, so that a kill
tears them.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from appliance.core.current import Current
from appliance.core.specs import FileSettings
from appliance.methods.base import FilePosition
from appliance.methods.files import append as _append
from appliance.methods.files.data_dir import DataFiles

PARTS = ("logs", "ship1", "all.log")


def make_line(number: int) -> bytes:
    """One message's bytes: mostly short, some long enough to be torn by a kill. None are the end of another's."""
    size_bytes = random.Random(number).choice([0, 10, 10, 10, 200, 5_000, 400_000])
    return b"<%d %d %s\n" % (number, size_bytes, b"x" * size_bytes)


def read_journal(path: Path) -> tuple[int, dict[int, FilePosition | None]]:
    """The first number never accepted, and the messages not done with their last position."""
    accepted = 0
    unfinished: dict[int, FilePosition | None] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        kind, number, *rest = line.split(" ")
        if kind == "a":
            accepted = max(accepted, int(number) + 1)
            unfinished[int(number)] = None
        elif kind == "i":
            unfinished[int(number)] = FilePosition(rest[1], int(rest[0]), *map(int, rest[2:]))
        else:
            del unfinished[int(number)]
    return accepted, unfinished


def write_slowly(file_fd: int, data: bytes) -> None:
    for begin in range(0, len(data), 40_000):
        os.write(file_fd, data[begin : begin + 40_000])
        time.sleep(0.0005)


async def main(folder: Path, seed: int, new_count: int, max_bytes: int) -> None:
    accepted, unfinished = read_journal(folder / "journal")
    journal_fd = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    todo: list[tuple[int, FilePosition | None, bool]] = [
        (number, position, False) for number, position in unfinished.items()
    ]
    todo += [(number, None, True) for number in range(accepted, accepted + new_count)]
    head, tail = todo[: len(unfinished) + 50], todo[len(unfinished) + 50 :]
    random.Random(seed).shuffle(head)
    waiting = iter(head + tail)

    def note(text: str) -> None:
        os.write(journal_fd, f"{text}\n".encode())

    async def work(files: DataFiles) -> None:
        for number, resume, is_new in waiting:
            if is_new:
                note(f"a {number}")

            async def intend(position: FilePosition, number: int = number) -> None:
                await asyncio.sleep(0)
                place = position
                note(f"i {number} {place.offset} {place.path} {place.length} {place.inode}")

            await files.append(PARTS, make_line(number), resume=resume, intend=intend)
            note(f"d {number}")

    settings = FileSettings(max_bytes=max_bytes, keep_files=1_000)
    async with DataFiles(folder / "data", Current(settings)) as files:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(work(files))


if __name__ == "__main__":
    _append.write_all = write_slowly
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
