"""`appliance cp` with real daemons: from a node, to a node and between nodes, and what is said when it cannot be."""

import hashlib
import json
import os

import pytest

from appliance.cli import main
from tests.support.copy_fleet import copy_fleet, hash_of, write_random
from tests.support.terminal import OnTerminal
from tests.support.waiting import until

BYTES = b"\xff\0\xfe\r\n" * 1_000
LARGE = 3_000_001


@pytest.fixture(scope="module", params=[("cbor", "none"), ("gob", "zstd")], ids=["cbor", "gob"])
def both(request, tmp_path_factory):
    """A fleet of either serialization."""
    serialization, compression = request.param
    directory = tmp_path_factory.mktemp(f"cp-{serialization}")
    with copy_fleet(directory, serialization=serialization, compression=compression) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with copy_fleet(tmp_path_factory.mktemp("cp")) as fleet:
        yield fleet


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Where the one who types is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_come_from_a_node_and_go_to_one_and_between_two(both, here):
    contents = {"small": BYTES, "empty": b"", "large": os.urandom(LARGE)}
    sources = both.at("ship1", "sources")
    sources.mkdir()
    for name, data in contents.items():
        (sources / name).write_bytes(data)
    (here / "came").mkdir()
    places = {
        here / "came": [*(f"ship1:{sources}/{name}" for name in contents), "came"],
        both.at("ship1", "brought"): [*(f"came/{name}" for name in contents), f"ship1:{both.at('ship1', 'brought')}/"],
        both.at("central", "passed"): [*(f"ship1:{sources}/{name}" for name in contents),
                                       f"central:{both.at('central', 'passed')}/"],
    }  # fmt: skip
    for directory, words in places.items():
        if directory.parent != here:
            # a slip in a path makes no directory, and takes nothing
            done = both.run("cp", *words)
            assert (done.returncode, directory.exists()) == (1, False)
            assert "its directory does not exist (cp --mkdir makes it)" in done.stderr
        done = both.run("cp", "--mkdir", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == contents
    both.settle()
    assert both.leftovers() == []
    assert both.central.status()["outbox"]["dead"] == both.ship.status()["outbox"]["dead"] == 0


@pytest.fixture
def cp(fleet, capsys):
    """`cp` without a process of its own: exit status, stdout and stderr."""

    def run(*words):
        code = main(["cp", *words, "--state-dir", str(fleet.central.state)])
        return int(code), *capsys.readouterr()

    return run


def test_several_files_go_into_a_directory_and_one_that_fails_keeps_no_other(fleet, cp, here):
    for name in ("one", "two"):
        fleet.at("ship1", name).write_text(name)
    (here / "logs").mkdir()
    sources = [f"ship1:{fleet.at('ship1', name)}" for name in ("one", "missing", "two")]
    code, _, said = cp(*sources, "logs")
    assert code == 1
    assert sorted(path.name for path in (here / "logs").iterdir()) == ["one", "two"]
    assert said.splitlines() == [
        f"appliance: ship1: {fleet.at('ship1', 'missing')}: no such file or directory",
        "appliance: 2 of 3 copied, 1 failed",
    ]


def test_machines_are_told_every_fact(fleet, cp, here):
    fleet.at("ship1", "facts").write_bytes(BYTES)
    source, missing = fleet.at("ship1", "facts"), fleet.at("ship1", "missing")
    code, out, _ = cp(f"ship1:{source}", f"ship1:{missing}", ".", "-o", "json")
    assert code == 1
    facts = json.loads(out)
    good, bad = facts["copies"]
    assert (good["state"], good["target"], good["is_confirmed"]) == ("copied", "./facts", True)
    assert (good["size"], good["sha256"]) == (len(BYTES), hashlib.sha256(BYTES).hexdigest())
    assert (bad["state"], bad["size"]) == ("failed", None)
    assert "no such file" in bad["reason"]
    target = fleet.at("central", "facts")
    _, out, _ = cp(f"ship1:{source}", f"central:{target}", "-o", "json")
    (copied,) = json.loads(out)["copies"]
    assert (copied["size"], copied["sha256"]) == (good["size"], good["sha256"])


FROM_SHIP = ("ship1:{ship}/{name}", "copied")
TO_SHIP = ("here", "ship1:{ship}/{name}")


@pytest.mark.parametrize(
    ("places", "name", "said"),
    [
        (FROM_SHIP, "missing", "ship1: {ship}/missing: no such file or directory"),
        (FROM_SHIP, "directory", "ship1: {ship}/directory is a directory"),
        (FROM_SHIP, "link", "ship1: {ship}/link (/etc/hostname) is not in allow_paths"),
        (("ship1:/etc/hostname", "copied"), "", "ship1: /etc/hostname is not in allow_paths"),
        (TO_SHIP, "directory", ("here: ship1 refused it: {ship}/directory is a directory: name the file in it"
                                " (to copy into a directory: ship1:{ship}/directory/)")),
        (TO_SHIP, "link", "here: ship1 refused it: {ship}/link is no regular file"),
        (("here", "ship1:/etc/here"), "", "here: ship1 refused it: /etc/here is not in allow_paths\n"),
        (("here", "ship1:/etc"), "", "/etc is not in allow_paths (to copy into a directory: ship1:/etc/)\n"),
        (("nothing", "ship1:{ship}/x"), "", "nothing: no such file or directory"),
        (("dir", "ship1:{ship}/x"), "", "dir: it is a directory; regular files are copied"),
        (("pipe", "ship1:{ship}/x"), "", "pipe: it is no regular file; regular files are copied"),
        (("ship1:{ship}/source", "none/x"), "", "none/x: its directory does not exist"),
        (("ship1:{ship}/source", "none/"), "", "none/: no such directory"),
        (("ship1:{ship}/source", "central:/etc/never"), "",
         "ship1:{ship}/source: central refused it: /etc/never is not in allow_paths"),
        (("bare:/x", "copied"), "", "bare"),
        (("shp1:/x", "copied"), "", "no file could come back: 'shp1' is not declared (did you mean ship1?)"),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_is_told_in_one_line(fleet, cp, here, places, name, said):
    ship = fleet.root / "ship1"
    (ship / "directory").mkdir(exist_ok=True)
    (ship / "source").write_text("source")
    if not (ship / "link").is_symlink():
        (ship / "link").symlink_to("/etc/hostname")
    (here / "here").write_text("here")
    (here / "dir").mkdir()
    os.mkfifo(here / "pipe")
    words = [place.format(ship=ship, name=name) for place in places]
    # who answers has all the time that it needs
    code, _, told = cp("--wait", "1s" if "bare" in said else "1m", *words)
    assert code == (3 if "bare" in said else 1), told
    assert said.format(ship=ship) in told
    assert told.count("\n") == 1
    assert not (here / "copied").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "Missing argument"),
        (["a", "b"], "both are here"),
        (["ship1:a", "b"], "the path at a node is absolute, as in ship1:/a"),
        (["ship1:/a", "ship1:/a", "."], "two sources would become ./a"),
        (["--wait", "0", "ship1:/a", "."], "between 1s and 1h"),
        (["--wait", "soon", "ship1:/a", "."], "--wait"),
    ],
)
def test_wrong_use_is_answered_at_once(cp, here, words, said):
    code, _, told = cp(*words)
    assert code == 64
    assert said in told


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_node_that_is_away_is_silence_and_nothing_is_left_for_later(fleet, cp, here, size):
    write_random(here / "file", size)
    write_random(fleet.at("ship1", "for-away"), size)
    copies = [
        ("file", "away:/x", "nobody took /x at away in time"),
        ("away:/x", "copied", "away is away, or does not subscribe REQCopyFileFrom (1 s, --wait)"),
        (f"ship1:{fleet.at('ship1', 'for-away')}", "away:/x", "nobody took /x at away in time"),
    ]
    for source, target, said in copies:
        code, _, told = cp("--wait", "1s", source, target)
        assert (code, said in told) == (3, True), told
    assert (
        "the config here names no REQCopyFileTo of bare" in cp("--wait", "1s", "file", "bare:/x")[2]
    )
    fleet.settle()
    for daemon in (fleet.central, fleet.ship):
        # what was told of it to errorCentral may still be on its way
        outbox = daemon.wait_until(lambda status: not status["outbox"]["pending"])["outbox"]
        assert outbox["dead"] == 0
    assert fleet.leftovers() == []


def test_without_a_daemon_it_is_said_once(here, capsys):
    assert main(["cp", "--state-dir", str(here), "ship1:/a", "ship1:/b", "."]) == 69
    assert capsys.readouterr().err.count("no daemon answers") == 1


def test_a_terminal_shows_a_bar_and_a_log_does_not(fleet, here):
    source = fleet.at("ship1", "shown.bin")
    write_random(source, LARGE)
    with OnTerminal("cp", f"ship1:{source}", "shown.bin", state_dir=fleet.central.state) as shown:
        assert shown.wait() == 0
    assert "shown.bin" in shown.said
    assert "[####################] 100%  3.0 MB" in shown.said
    with OnTerminal("cp", "-q", "shown.bin", f"ship1:{source}", state_dir=fleet.central.state) as quiet:  # fmt: skip
        assert quiet.wait() == 0
    assert quiet.said == ""


def test_a_file_here_keeps_its_mode_and_its_links_are_followed(fleet, cp, here):
    fleet.at("ship1", "mode").write_text("new")
    (here / "real").write_text("old")
    (here / "real").chmod(0o640)
    (here / "link").symlink_to("real")
    assert cp(f"ship1:{fleet.at('ship1', 'mode')}", "link")[0] == 0
    assert (here / "link").is_symlink()
    assert (here / "real").read_text() == "new"
    assert (here / "real").stat().st_mode & 0o777 == 0o640
    assert cp(f"ship1:{fleet.at('ship1', 'mode')}", "/dev/null")[0] == 0


@pytest.mark.parametrize("way", ["from", "to", "between"])
def test_interrupted_it_ends_at_once_and_says_what_becomes_of_it(fleet, here, way):
    size = 12_000_000
    source, target = fleet.at("ship1", f"slow-{way}"), fleet.at("central", f"slow-{way}")
    sha256 = write_random(source, size)
    fleet.link.bytes_per_s = 1.5e6  # it is never done before it is interrupted
    logs = [daemon.log_path.stat().st_size for daemon in (fleet.central, fleet.ship)]
    try:
        words = {
            "from": [f"ship1:{source}", "copied"],
            "to": [str(source), f"ship1:{source}.2"],
            "between": [f"ship1:{source}", f"central:{target}"],
        }[way]
        (here / "copied").write_text("old")
        with OnTerminal("cp", *words, state_dir=fleet.central.state) as shown:
            shown.until(lambda said: any(f" {share}%" in said for share in range(5, 60)))
            shown.interrupt()
            assert shown.wait() == 130
    finally:
        fleet.link.bytes_per_s = None
    assert (here / "copied").read_text() == "old"
    fleet.settle()
    if way == "between":
        assert "ship1 has begun and goes on copying to central" in shown.said
        assert hash_of(target) == sha256
    else:
        assert "is as it was" in shown.said
        assert not source.with_name(f"{source.name}.2").exists()
        until(lambda: not fleet.leftovers())
    for daemon, log in ((fleet.central, logs[0]), (fleet.ship, logs[1])):
        assert daemon.status()["outbox"]["dead"] == 0
        assert "handler failed" not in daemon.log_path.read_text()[log:]
        assert "dead letter" not in daemon.log_path.read_text()[log:]


def test_send_shows_how_far_a_copy_is(fleet, here):
    source, target = fleet.at("ship1", "sent"), fleet.at("central", "sent")
    sha256 = write_random(source, 12_000_000)
    words = [
        "send",
        "--to",
        "ship1",
        "--wait",
        "60s",
        "REQCopyFileFrom",
        str(source),
        "central",
        str(target),
    ]
    fleet.link.bytes_per_s = 6e6
    try:
        done = fleet.run(*words)
        assert done.returncode == 0, done.stderr
        assert any("% of 12.0 MB" in line for line in done.stderr.splitlines())
        assert f"12000000 bytes, sha256 {sha256}" in done.stdout
        with OnTerminal(*words, state_dir=fleet.central.state) as shown:
            assert shown.wait() == 0
        assert "[#" in shown.said
        assert " of 12.0 MB  " in shown.said
    finally:
        fleet.link.bytes_per_s = None
    assert hash_of(target) == sha256
