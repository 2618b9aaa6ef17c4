"""`appliance cp` of many: directories both ways, patterns, several nodes, what a file has beside its content, holes."""

import json
import os
import signal
import subprocess

import pytest

from tests.measure.copy_many_files import run_both_ways
from tests.support import forked
from tests.support.copy_fleet import copy_fleet
from tests.support.programs import ended
from tests.support.waiting import until

TREE = {"a": b"one\n", "d/b": b"\xff\0" * 300_000, "d/e/caf\udce9": b"x", "d/empty": b""}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with copy_fleet(tmp_path_factory.mktemp("many"), compression="zstd") as fleet:
        yield fleet


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_tree(root, tree=TREE):
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def read_tree(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_directory_comes_and_goes_whole_and_links_lead_out_of_neither(fleet, here):
    source = make_tree(fleet.at("ship1", "tree"))
    (source / "nothing").mkdir()
    (source / "out").symlink_to("/etc/hostname")
    (source / "secret").symlink_to(fleet.at("central", "elsewhere"))
    (source / "in").symlink_to("a")
    done = fleet.run("cp", "-r", f"ship1:{source}", "got")
    assert done.returncode == 0, done.stderr
    assert read_tree(here / "got") == {**TREE, "in": b"one\n"}
    assert (here / "got" / "nothing").is_dir()
    assert done.stderr.count("a link that leads out of what is copied: it is not copied") == 2

    (here / "got" / "out").symlink_to("/etc/hostname")
    done = fleet.run("cp", "-r", "got", f"ship1:{fleet.at('ship1', 'back')}/")
    assert done.returncode == 0, done.stderr
    assert read_tree(fleet.at("ship1", "back") / "got") == {**TREE, "in": b"one\n"}
    done = fleet.run("cp", "-r", f"ship1:{source}", f"central:{fleet.at('central', 'passed')}/")
    assert done.returncode == 0, done.stderr
    assert read_tree(fleet.at("central", "passed") / "tree") == {**TREE, "in": b"one\n"}
    fleet.settle()
    assert fleet.leftovers() == []


def test_a_directory_that_is_copied_to_a_node_makes_what_is_below_it_and_no_other(fleet, here):
    (here / "tree" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (here / "tree" / name).write_text(name)
    base = fleet.at("ship1", "base")
    base.mkdir()
    for target in (f"{base}/mistyped/new/", f"{base}/mistyped/new"):
        done = fleet.run("cp", "-r", "tree", f"ship1:{target}")
        assert done.returncode == 1
        assert f"{base}/mistyped: no such directory (cp --mkdir makes it)" in done.stderr
        assert not list(base.iterdir())
    for words, root in (
        ((f"ship1:{base}/new",), "new"),
        ((f"ship1:{base}/",), "tree"),
        ((f"ship1:{base}/into/",), "into/tree"),
        (("--mkdir", f"ship1:{base}/deep/er/"), "deep/er/tree"),
        ((f"ship1:{base}/again",), "again"),
    ):
        source = f"ship1:{base}/new" if root == "again" else "tree"
        done = fleet.run("cp", "-r", *words[:-1], source, words[-1])
        assert (done.returncode, done.stderr) == (0, "")
        assert (base / root / "a").read_text() == "a"
        assert (base / root / "sub" / "b").read_text() == "sub/b"
    # and its job tells from where to where
    shown = fleet.run("jobs", "list").stdout
    assert f"cp {here}/tree ship1:{base}/into/\n" in shown


def test_all_that_one_command_copies_is_one_job(fleet, here):
    make_tree(here / "site")
    for places in (("site", "ship1:/there/"), ("ship1:/there/site", "back")):
        places = [place.replace("/there", str(fleet.at("ship1", "one-job"))) for place in places]
        before = json.loads(fleet.run("jobs", "list", "-o", "json").stdout)["jobs"]
        done = fleet.run("cp", "-r", "--mkdir", "-o", "json", *places)
        assert done.returncode == 0, done.stderr
        jobs = json.loads(fleet.run("jobs", "list", "-o", "json").stdout)["jobs"]
        assert len(jobs) == len(before) + 1
        assert jobs[0]["id"] == json.loads(done.stdout)["job"]
        assert jobs[0]["counts"] == {"total": 4, "done": 4, "failed": 0, "silent": 0}
        shown = fleet.run("jobs", "show", jobs[0]["id"])
        assert shown.returncode == 0
        here_in_full = [place if ":" in place else str(here / place) for place in places]
        assert shown.stdout.splitlines()[1:] == [
            f"  cp {' '.join(here_in_full)}",
            "  ship1  4 of 4 files done",
        ]


def test_a_file_that_fails_is_named_in_the_job_of_all(fleet, here):
    make_tree(here / "mixed", {"a": b"1", "b": b"2"})
    there = fleet.at("ship1", "mixed-there")
    (there / "b").mkdir(parents=True)
    assert fleet.run("cp", "mixed/a", "mixed/b", f"ship1:{there}/").returncode == 1
    shown = fleet.run(
        "jobs", "show", json.loads(fleet.run("jobs", "-o", "json").stdout)["jobs"][0]["id"]
    )
    assert shown.returncode == 1
    assert "ship1  1 of 2 files done, 1 failed" in shown.stdout
    assert f"ship1: {here / 'mixed/b'}  failed: " in shown.stdout


def test_a_copy_of_many_that_is_cancelled_ends_and_copies_no_more(fleet, here):
    make_tree(here / "much", {f"f{n}": b"x" * 3_000_000 for n in range(60)})
    there = fleet.at("ship1", "cancelled")
    words = ["cp", "-r", "-q", "--at-once", "2", "much", f"ship1:{there}"]
    environment = {**os.environ, "APPLIANCE_STATE_DIR": str(fleet.central.state)}
    command = [forked.program(), *words]
    with ended(
        subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    ) as copying:
        until(lambda: len(list(there.rglob("f*"))) > 3)
        job = json.loads(fleet.run("jobs", "-o", "json").stdout)["jobs"][0]
        told = fleet.run("jobs", "cancel", job["id"])
        _, said = copying.communicate(timeout=60)
    assert copying.returncode == 1
    assert "was cancelled: nothing more is asked for it" in said
    assert "ended: what is there stays as it was" in told.stdout
    assert len(list(there.rglob("f*"))) < 60
    shown = fleet.run("jobs", "show", job["id"])
    assert shown.returncode == 1
    assert "cancelled by" in shown.stdout
    fleet.settle()
    until(lambda: fleet.leftovers() == [], tell=fleet.leftovers)


def test_pattern_is_answered_by_the_node_and_tells_nothing_beyond_what_it_may_read(fleet, here):
    logs = make_tree(fleet.at("ship1", "logs"), {"a.log": b"a", "b.log": b"b", "c.txt": b"c"})
    done = fleet.run("cp", f"ship1:{logs}/*.log", "got")
    assert done.returncode == 0, done.stderr
    assert read_tree(here / "got") == {"a.log": b"a", "b.log": b"b"}
    refused = [
        fleet.run("cp", f"ship1:{path}", "none/").stderr.replace(path, "PATH")
        for path in ("/etc/host*", "/etc/no-such*", f"{logs}/no-such*")
    ]
    assert refused[0] == refused[1] == refused[2]
    assert "in allow_paths" in refused[0]


def test_from_several_nodes_and_to_several(fleet, here):
    for node in ("central", "ship1"):
        fleet.at(node, "same").write_text(node)
    (here / "f").write_text("new")
    root = fleet.root
    paths = {node: str(fleet.at(node, "same")) for node in ("central", "ship1")}
    done = fleet.run("cp", "-o", "json", f"ship*,central:{paths['ship1']}", "got/")
    copies = {copy["source"]: copy for copy in json.loads(done.stdout)["copies"]}
    assert copies[f"ship1:{paths['ship1']}"]["state"] == "copied"
    assert copies[f"central:{paths['ship1']}"]["state"] == "failed"
    assert done.returncode == 1
    assert read_tree(here / "got") == {"ship1/same": b"ship1"}
    done = fleet.run("cp", "f", f"central,ship1:{root}/ship1/f")
    assert done.returncode == 1
    assert (root / "ship1" / "f").read_text() == "new"
    assert "1 of 2 copied, 1 failed" in done.stderr


def test_what_would_be_copied_is_shown_and_nodes_are_left_out(fleet, here):
    (here / "f").write_text("new")
    root = fleet.root
    words = ["cp", "--dry-run", "f", f"central,ship1,away:{root}/ship1/dry"]
    done = fleet.run(*words, "-x", "away", "--batch", "1")
    assert done.stdout.splitlines() == [
        "would copy 2 files",
        f"  f to central:{root}/ship1/dry",
        f"  f to ship1:{root}/ship1/dry",
        "batch 1: 1 node: central",
        "batch 2: 1 node: ship1",
    ]
    told = json.loads(fleet.run(*words, "-o", "json").stdout)
    assert [copy["target"].partition(":")[0] for copy in told["copies"]] == [
        "central",
        "ship1",
        "away",
    ]
    assert not (root / "ship1" / "dry").exists()


def test_no_further_batch_is_copied_for_once_too_many_failed(fleet, here):
    (here / "f").write_text("new")
    place = f"central,ship1:{fleet.root}/ship1/batched"
    done = fleet.run("cp", "--batch", "1", "--max-fail", "0", "-o", "json", "f", place)
    assert done.returncode == 1
    assert "not copied for (one failed): 1 node: ship1" in done.stderr
    assert json.loads(done.stdout)["summary"]["not_asked"] == ["ship1"]
    assert not (fleet.root / "ship1" / "batched").exists()
    done = fleet.run("cp", "--batch", "1", "--max-fail", "1", "f", place)
    assert (fleet.root / "ship1" / "batched").read_text() == "new"


def test_a_node_that_gives_no_sign_is_waited_for_once_and_not_for_each_file(fleet, here):
    make_tree(here / "to-away", {f"f{n}": b"x" for n in range(200)})
    done = fleet.run("cp", "-r", "-o", "json", "--wait", "1s", "to-away", "away:/x/")
    assert done.returncode == 3
    reasons = [copy["reason"] for copy in json.loads(done.stdout)["copies"]]
    assert len(reasons) == 200
    assert sum("not tried: no sign of life came" in reason for reason in reasons) >= 180


def test_a_node_that_is_away_is_told_and_keeps_no_other(fleet, here):
    fleet.at("ship1", "x1").write_text("x")
    done = fleet.run("cp", "--wait", "4s", f"ship1,away:{fleet.root}/ship1/x*", "got")
    assert done.returncode == 3, done.stderr
    assert "away:" in done.stderr
    assert (here / "got" / "ship1" / "x1").read_text() == "x"


def test_mode_owner_and_time_are_kept_and_set_or_nothing_is_replaced(fleet, here):
    source, target = fleet.at("ship1", "kept"), fleet.at("ship1", "given")
    source.write_text("x")
    source.chmod(0o754)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    assert fleet.run("cp", "-p", f"ship1:{source}", "kept").returncode == 0
    facts = os.stat("kept")
    assert (facts.st_mode & 0o7777, facts.st_mtime) == (0o754, 1_000_000_000)
    done = fleet.run("cp", "-p", "kept", f"ship1:{target}")
    assert (done.returncode, done.stderr) == (0, "")
    facts = target.stat()
    assert (facts.st_mode & 0o7777, facts.st_mtime) == (0o754, 1_000_000_000)
    assert fleet.run("cp", "--mode", "0640", "kept", f"ship1:{target}").returncode == 0
    assert target.stat().st_mode & 0o7777 == 0o640
    passed = fleet.at("central", "given")
    done = fleet.run("cp", "-p", "--mode", "0", f"ship1:{source}", f"central:{passed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (passed.stat().st_mode & 0o777, passed.stat().st_mtime) == (0, 1_000_000_000)
    (here / "kept").write_text("other")
    done = fleet.run("cp", "--owner", "no-such-user", "kept", f"ship1:{target}")
    assert done.returncode == 1
    assert "there is no user no-such-user; nothing was replaced" in done.stderr
    assert target.read_text() == "x"
    for words in (("--mode", "4755"), ("--mode", "9"), ("--owner", "a b")):
        assert fleet.run("cp", *words, "kept", f"ship1:{target}").returncode == 64


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_whose_a_file_is_is_kept_too_where_it_can_be_given(fleet, here):
    source, brought, passed = (
        fleet.at("ship1", "owned"),
        fleet.at("ship1", "owned-brought"),
        fleet.at("central", "owned-passed"),
    )
    source.write_text("x")
    os.chown(source, 1, 65_000)  # a group without a name
    for words in (
        (f"ship1:{source}", "owned"),
        ("owned", f"ship1:{brought}"),
        (f"ship1:{source}", f"central:{passed}"),
    ):
        done = fleet.run("cp", "-p", *words)
        assert (done.returncode, done.stderr) == (0, "")
    for path in (here / "owned", brought, passed):
        assert (path.stat().st_uid, path.stat().st_gid) == (1, 65_000), path
    assert fleet.run("cp", "-p", "--owner", "2", "owned", f"ship1:{brought}").returncode == 0
    assert brought.stat().st_uid == 2


def test_holes_stay_holes_on_every_disk_on_the_way(fleet, here):
    size = 64 * 1024 * 1024
    source, back = fleet.at("ship1", "sparse"), fleet.at("ship1", "sparse-back")
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")
    for words, path in (((f"ship1:{source}", "sparse"), here / "sparse"),
                        (("sparse", f"ship1:{back}"), back)):  # fmt: skip
        done = fleet.run("cp", *words)
        assert done.returncode == 0, done.stderr
        assert path.stat().st_size == size
        assert path.stat().st_blocks * 512 < 8 * 1024 * 1024
        with path.open("rb") as file:
            assert file.read(5) == b"begin"
            file.seek(-3, os.SEEK_END)
            assert file.read() == b"end"


def test_interrupted_it_leaves_nothing_half_done_and_nothing_behind(fleet, here):
    source = make_tree(fleet.at("ship1", "much"), {f"f{n}": b"x" * 200_000 for n in range(300)})
    command = [forked.program(), "cp", "-r", f"ship1:{source}", "much"]
    environment = {**os.environ, "APPLIANCE_STATE_DIR": str(fleet.central.state)}
    with ended(
        subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    ) as copying:
        until(lambda: len(list(here.rglob("f*"))) > 3)
        copying.send_signal(signal.SIGINT)
        _, said = copying.communicate(timeout=60)
    assert copying.returncode == 130, said
    assert all(data == b"x" * 200_000 for data in read_tree(here / "much").values())
    assert not list(here.rglob(".*"))
    fleet.settle()
    until(lambda: fleet.leftovers() == [], tell=fleet.leftovers)


def test_many_small_files_come_and_go_with_every_byte_right(fleet):
    """The short form of tests/measure/copy_many_files."""
    for outcome in run_both_ways(fleet, 60).values():
        assert (outcome.exit_code, outcome.said, outcome.wrong) == (0, "", 0)
