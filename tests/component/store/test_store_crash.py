"""kill -9 at any moment: what was accepted is there, what was finished is known, nothing is half done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from appliance.outbox.records import TakeInResult
from tests.support.store_bench import KEY, make_item, open_store, take

ROUNDS = 12


def run_and_kill(directory: Path, lines: int) -> list[tuple[str, int]]:
    """What the child reported before it was killed, `lines` lines after its start."""
    command = [sys.executable, "-m", "tests.support.store_writer_child", str(directory)]
    reported: list[tuple[str, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if not line.endswith("\n"):
                break
            word, number = line.split()
            reported.append((word, int(number)))
            if len(reported) == lines:
                child.kill()
        child.wait()
    return reported


async def test_nothing_accepted_is_lost_and_nothing_finished_is_forgotten_by_kill_9(
    tmp_path: Path,
):
    put: set[int] = set()
    done: set[int] = set()
    seen: set[int] = set()
    for round_number in range(ROUNDS):
        for word, number in run_and_kill(tmp_path, 20 + 37 * round_number):
            {"put": put, "done": done, "seen": seen}[word].add(number)
    assert len(put) > 1_000
    async with open_store(tmp_path) as store:
        lane = store.lane(KEY)
        present: set[int] = set()
        replied: set[int] = set()
        while (record := await take(lane)) is not None:
            present.add(record.id)
            if record.payload.startswith(b"reply to "):
                replied.add(int(record.payload.removeprefix(b"reply to ")))
            store.settle_done([record])
        assert put - done <= present
        assert len(seen) > ROUNDS
        known = await store.take_in([make_item(number) for number in sorted(seen)])
        assert {result for result, _, _ in known} == {TakeInResult.REPEAT_DONE}
        unfinished = await store.claim_inbox("beta", "REQToConsole")
        left = {row.message_id for row in unfinished}
        assert not left & seen
        assert len(left) <= 4 * ROUNDS  # those of one commit each
        assert not left & replied
        assert store.counts().dead == 0
