"""Many small files and a large one to several nodes behind a link that is cut twice.

`python -m tests.measure.copy_to_several [FILES [MB [NODES]]]`; of 0 files, or MB, that part is left out.

All ships reach the broker over one link, which stalls and is cut when a third and when two thirds of the bytes have passed,
and mended two seconds later. Told are the time, files or MB a second over all nodes, what the peak of each daemon's memory
grew to, and how many files are wrong or missing. It takes root: each ship mounts files of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.measure.copy_many_files import make_tree
from tests.measure.copy_over_cut_link import DOWN_S, HELD_S, memory_mb
from tests.support.appliance import Appliance, settle
from tests.support.copy_fleet import hash_of, write_random
from tests.support.cut_link import CutLink
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace

CONFIG = """
version: 1
broker: {{servers: ["{url}"], ping_interval: 1s, reconnect_wait: 100ms}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
roles:
  ship:
    subscribe:
      REQToFileAppend: {{}}
      REQCopyFileTo: {{allow_paths: ["{root}/**"], max_file_bytes: 4294967296}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{}}, REQCopyFileTo: {{}}}}}}
  {ships}
"""
LIMIT_S = 7_200.0


IN_ITS_PLACE = 'mount --bind "$0" "$1" && shift && exec "$@"'
"""In a mount namespace: each ship has files of its own at one and the same path, as machines have."""


class Ships:
    """Central beside the broker, and ships with a daemon each behind one link."""

    def __init__(
        self, central: Appliance, ships: Sequence[Appliance], link: CutLink, root: Path
    ) -> None:
        self.central, self.ships, self.link, self.root = central, ships, link, root
        self.common = root / "common"


@contextlib.contextmanager
def make_ships(directory: Path, count: int) -> Iterator[Ships]:
    """Start everything; end it in the end."""
    with NatsServer() as server, CutLink(server.port) as link, contextlib.ExitStack() as stack:
        root = directory / "files"
        names = [f"ship{number}" for number in range(1, count + 1)]
        lines = "\n  ".join(f"{name}: {{roles: [ship]}}" for name in names)

        (root / "common").mkdir(parents=True)

        def start(name: str, url: str) -> Appliance:
            (root / name).mkdir()
            text = CONFIG.format(url=url, root=root, ships=lines)
            command = [
                *(
                    "unshare",
                    "-m",
                    "sh",
                    "-c",
                    IN_ITS_PLACE,
                    str(root / name),
                    str(root / "common"),
                ),
                *(sys.executable, "-m", "appliance"),
            ]
            daemon = Appliance(text, directory / name, args=["--node", name], command=command)
            daemon.only_named = True
            return stack.enter_context(daemon)

        central = start("central", server.url)
        ships = [start(name, f"nats://127.0.0.1:{link.port}") for name in names]
        yield Ships(central, ships, link, root)


def copy(ships: Ships, words: Sequence[str], total_bytes: int) -> tuple[int, float, float, str]:
    """Run `cp` and cut the link twice: exit status, seconds, seconds without a link, what it said."""
    command = [sys.executable, "-m", "appliance", "cp", "-q", "--state-dir"]
    broken_s = 0.0
    began = time.perf_counter()
    first = ships.link.passed_bytes
    process = subprocess.Popen(
        [*command, str(ships.central.state), *words], stderr=subprocess.PIPE, text=True
    )
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.append(process.stderr.read()))  # type: ignore[union-attr]
    reading.start()
    for share in (1 / 3, 2 / 3):
        while ships.link.passed_bytes - first < total_bytes * share and process.poll() is None:
            pace(time.monotonic() + 0.05)
        if process.poll() is not None:
            break
        broke = time.perf_counter()
        ships.link.hold()
        pace(time.monotonic() + HELD_S)
        ships.link.cut()
        pace(time.monotonic() + DOWN_S)
        ships.link.mend()
        broken_s += time.perf_counter() - broke
    exit_code = process.wait(LIMIT_S)
    reading.join()
    return exit_code, time.perf_counter() - began, broken_s, "".join(said)


def describe_memory(ships: Ships) -> str:
    """What the peaks grew to."""
    peaks = [memory_mb(ship) for ship in ships.ships]
    return f"peak RSS central {memory_mb(ships.central):.0f} MB, ships up to {max(peaks):.0f} MB"


def run(ships: Ships, name: str, hashes: dict[str, str], *, is_tree: bool) -> str:
    """Copy to each ship what stands at central, and look at every file."""
    source = ships.root / "central" / name
    files = [source / file for file in hashes] if is_tree else [source]
    size = sum(path.stat().st_size for path in files)
    count, cuts = len(ships.ships), ships.link.cuts
    words = [*(["-r"] if is_tree else []), str(source), f"ship*:{ships.common / name}"]
    exit_code, seconds, broken_s, said = copy(ships, words, size * count)
    wrong = 0
    for number in range(1, count + 1):
        there = ships.root / f"ship{number}" / name
        paths = {there / file if is_tree else there: sha256 for file, sha256 in hashes.items()}
        wrong += sum(not (at.is_file() and hash_of(at) == sha256) for at, sha256 in paths.items())
    working_s = seconds - broken_s
    pace_words = (
        f"{count * len(hashes) / working_s:.0f} files/s"
        if is_tree
        else f"{size * count / 1e6 / working_s:.1f} MB/s"
    )
    settle(ships.central, *ships.ships)
    return (
        f"exit {exit_code}, {wrong} of {count * len(hashes)} wrong or missing, {ships.link.cuts - cuts} cuts,"
        f" {seconds:.1f} s, {broken_s:.1f} s of them without a link: {pace_words}, {describe_memory(ships)} {said[-300:]}"
    )


def main() -> None:
    arguments = [int(word) for word in sys.argv[1:]]
    file_count, size_mb, node_count = (*arguments, *(10_000, 2_000, 20)[len(arguments) :])
    for name in [*(["many"] if file_count else []), *(["large"] if size_mb else [])]:
        # daemons of their own for each, so that a peak is this run's
        with (
            tempfile.TemporaryDirectory() as directory,
            make_ships(Path(directory), node_count) as ships,
        ):
            place = ships.root / "central" / name
            is_tree = name == "many"
            hashes = (
                make_tree(place, file_count)
                if is_tree
                else {name: write_random(place, size_mb * 1_000_000)}
            )
            told = run(ships, name, hashes, is_tree=is_tree)
            print(f"{name} to {node_count}: {told}", flush=True)


if __name__ == "__main__":
    main()
