"""Copies between real daemons while links are cut and either end is killed: the file arrives whole, or not at all."""

import os
import threading
import time

import pytest

from tests.measure.copy_over_cut_link import commands, run
from tests.support.copy_fleet import copy_fleet, hash_of, write_random
from tests.support.terminal import OnTerminal
from tests.support.waiting import until

SIZE = 16_000_000
SLOWLY = 8e6
"""Bytes per second: quick enough for a test, slow enough that something can happen in the middle."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with copy_fleet(tmp_path_factory.mktemp("broken")) as fleet:
        yield fleet


@pytest.fixture
def own_fleet(tmp_path):
    """Daemons that may be killed."""
    with copy_fleet(tmp_path) as fleet:
        yield fleet


def ask(fleet, source, target):
    """Have ship1 copy a file to central without anybody waiting for it."""
    (item,) = fleet.central.send({
        "from_node": "central", "to_nodes": ["ship1"], "method": "REQCopyFileFrom",
        "method_args": [str(source), "central", str(target)], "file_name": "copied.log", "directory": "answers",
    })  # fmt: skip
    assert item["accepted"], item


def part_of(target):
    """What has come of a file so far, in bytes."""
    return sum(path.stat().st_size for path in target.parent.glob(f".{target.name}.appl-part-*"))


def answer(fleet):
    """What ship1 told of the copy in the end."""
    log = fleet.central.data("answers", "ship1", "copied.log")
    until(log.exists)
    fleet.settle()
    return log.read_text()


@pytest.mark.parametrize(
    ("way", "at_percent"),
    [
        ("send REQCopyFileFrom", (20, 50, 80)),
        ("cp from a node", (20, 50, 80)),
        # the sender's own link is whole, so each cut is only known by a silence of five seconds
        ("cp to a node", (50,)),
    ],
)
def test_over_a_link_that_is_cut_a_file_arrives_whole(fleet, way, at_percent):
    sha256 = write_random(fleet.at("ship1", "large"), SIZE)
    fleet.link.bytes_per_s = SLOWLY
    try:
        outcome = run(
            fleet, *commands(fleet, "large")[way], sha256, at_percent, held_s=0.1, down_s=0.2
        )
    finally:
        fleet.link.bytes_per_s = None
    assert (outcome.exit_code, outcome.is_right, outcome.cuts) == (0, True, len(at_percent))
    assert outcome.shown > 3
    fleet.settle()
    assert fleet.leftovers() == []


@pytest.mark.parametrize("victim", ["taker", "sender"])
def test_killed_in_the_middle_it_goes_on_when_it_is_back(own_fleet, victim):
    fleet = own_fleet
    source, target = fleet.at("ship1", "large"), fleet.at("central", "large")
    sha256 = write_random(source, SIZE)
    target.write_text("old")
    fleet.link.bytes_per_s = SLOWLY
    ask(fleet, source, target)
    until(lambda: part_of(target) > SIZE * 3 // 4)
    killed = fleet.central if victim == "taker" else fleet.ship
    killed.kill()
    assert target.read_text() == "old"
    fleet.link.bytes_per_s = None
    passed_bytes = fleet.link.passed_bytes
    killed.start()
    until(lambda: hash_of(target) == sha256)
    # as text the whole would be 21 MB more; what was acknowledged before the last mark does not come again
    assert fleet.link.passed_bytes - passed_bytes < SIZE
    assert f"16000000 bytes, sha256 {sha256}" in answer(fleet)
    assert fleet.leftovers() == []


def test_both_killed_again_and_again_it_still_arrives(own_fleet):
    fleet = own_fleet
    source, target = fleet.at("ship1", "large"), fleet.at("central", "large")
    sha256 = write_random(source, SIZE)
    fleet.link.bytes_per_s = SLOWLY
    ask(fleet, source, target)
    for step in range(1, 4):
        until(lambda least=step * SIZE // 5: part_of(target) > least)
        killed = [fleet.central, fleet.ship, fleet.central][step - 1]
        killed.kill()
        killed.start()
    fleet.link.bytes_per_s = None
    until(lambda: target.exists() and hash_of(target) == sha256)
    assert f"sha256 {sha256}" in answer(fleet)
    assert fleet.leftovers() == []


def test_a_stop_in_the_middle_is_quick_and_the_copy_goes_on_afterwards(own_fleet):
    fleet = own_fleet
    source, target = fleet.at("ship1", "large"), fleet.at("central", "large")
    sha256 = write_random(source, SIZE)
    fleet.link.bytes_per_s = SLOWLY
    ask(fleet, source, target)
    until(lambda: part_of(target) > SIZE // 3)
    began = time.monotonic()
    assert fleet.ship.stop() in (0, 75)  # 75: with work in hand
    assert time.monotonic() - began < 25
    fleet.link.bytes_per_s = None
    fleet.ship.start()
    until(lambda: target.exists() and hash_of(target) == sha256)
    assert f"sha256 {sha256}" in answer(fleet)


def test_a_log_that_is_written_all_the_time_is_copied(fleet):
    source, target = fleet.at("ship1", "log"), fleet.at("central", "log")
    write_random(source, 3_000_000)
    before = source.read_bytes()
    stop = threading.Event()

    def write():
        while not stop.wait(0.002):
            with source.open("ab") as file:
                file.write(b"another line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = fleet.run("cp", f"ship1:{source}", f"central:{target}")
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0, done.stderr
    copied = target.read_bytes()
    assert copied.startswith(before)
    assert source.read_bytes().startswith(copied)


def test_a_damaged_part_replaces_nothing_and_the_next_copy_is_right(own_fleet):
    fleet = own_fleet
    source, target = fleet.at("ship1", "large"), fleet.at("central", "large")
    sha256 = write_random(source, SIZE)
    target.write_text("old")
    fleet.link.bytes_per_s = SLOWLY
    ask(fleet, source, target)
    until(lambda: part_of(target) > SIZE // 2)
    fleet.central.kill()  # a part is only read again after a restart
    (part,) = target.parent.glob(".large.appl-part-*")
    with part.open("r+b") as file:
        file.write(os.urandom(1_000))
    fleet.link.bytes_per_s = None
    fleet.central.start()
    until(lambda: "sha256 differs" in fleet.ship.log())
    assert target.read_text() == "old"
    fleet.settle()
    assert fleet.leftovers() == []
    assert fleet.run("cp", f"ship1:{source}", f"central:{target}").returncode == 0
    assert hash_of(target) == sha256


@pytest.mark.parametrize("way", ["from", "to", "between"])
def test_cp_waits_for_its_own_daemon_and_begins_again(own_fleet, tmp_path, way):
    fleet = own_fleet
    source, here = fleet.at("ship1", "large"), tmp_path / "here"
    sha256 = write_random(source, SIZE)
    brought = fleet.at("ship1", "brought")
    fleet.link.bytes_per_s = SLOWLY
    passed = fleet.at("central", "passed")
    words = {
        "from": [f"ship1:{source}", str(here)],
        "to": [str(source), f"ship1:{brought}"],
        "between": [f"ship1:{source}", f"central:{passed}"],
    }
    with OnTerminal("cp", "--wait", "60s", *words[way], state_dir=fleet.central.state) as shown:
        shown.until(lambda said: any(f" {share}%" in said for share in range(10, 70)))
        fleet.central.kill()
        fleet.link.bytes_per_s = None
        fleet.central.start()
        assert shown.wait() == 0
    assert "waiting up to 60 s for it" in shown.said
    assert hash_of({"from": here, "to": brought, "between": passed}[way]) == sha256
    assert os.listdir(fleet.central.state / "copies" / "spool") == []


@pytest.mark.parametrize("way", ["from", "to"])
def test_a_daemon_that_dies_under_cp_is_told_and_the_target_is_as_it_was(own_fleet, tmp_path, way):
    fleet = own_fleet
    source, here = fleet.at("ship1", "large"), tmp_path / "here"
    write_random(source, SIZE)
    here.write_text("old")
    fleet.at("ship1", "brought").write_text("old")
    fleet.link.bytes_per_s = SLOWLY
    words = {
        "from": [f"ship1:{source}", str(here)],
        "to": [str(source), f"ship1:{fleet.at('ship1', 'brought')}"],
    }
    with OnTerminal("cp", "--wait", "2s", *words[way], state_dir=fleet.central.state) as shown:
        shown.until(lambda said: any(f" {share}%" in said for share in range(10, 70)))
        fleet.central.kill()
        assert shown.wait() == 69
    assert "went away" in shown.said
    assert here.read_text() == fleet.at("ship1", "brought").read_text() == "old"
    fleet.link.bytes_per_s = None
    fleet.central.start()
    fleet.settle()
    assert os.listdir(fleet.central.state / "copies" / "spool") == []
    assert fleet.central.status()["outbox"]["dead"] == 0
