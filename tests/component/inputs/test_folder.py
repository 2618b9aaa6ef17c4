"""The read folder: what is taken and when, odd entries, two daemons, interruptions at every step."""

import asyncio
import dataclasses
import json
import os
import time

import pytest

from appliance.core.specs import FolderInput, InputSettings
from appliance.errors import DaemonError, StoreFull
from appliance.inputs import folder as folder_module
from appliance.inputs.claims import Claim, FolderFiles
from tests.component.inputs.conftest import Bench
from tests.support.waiting import until_async

PING = '[{"toNode": "ship1", "method": "REQPing"}]'


@pytest.fixture
def path(short_dir):
    return short_dir / "spool"


def section(path, **changes):
    return FolderInput(path=str(path), **{"settle_s": 0.02, "poll_interval_s": 0.05} | changes)


@pytest.fixture
async def folder(bench, path):
    await bench.set(folder=section(path))
    return bench


def answer_of(path, name, where="done"):
    file = path / where / f"{name}.answer.json"
    return json.loads(file.read_text()) if file.exists() else None


async def taken(path, name, where="done"):
    await until_async(lambda: (path / where / name).exists())
    return answer_of(path, name, where)


def claims_left(path):
    return [entry for below in path.glob(".taking-*") for entry in below.iterdir()]


async def test_a_file_that_appears_is_taken_and_its_answer_lies_beside_it(folder, path):
    (path / "a.json").write_text(PING)
    answer = await taken(path, "a.json")
    assert answer["accepted"][0]["to"] == "ship1"
    assert (path / "done" / "a.json").read_text() == PING
    assert sorted(entry.name for entry in path.iterdir() if not entry.is_dir()) == []
    await until_async(lambda: not claims_left(path))


async def test_files_that_were_there_before_are_taken_in_the_order_of_their_age(bench, path):
    path.mkdir()
    for age, name in enumerate(("c", "a", "b")):
        (path / name).write_text(f'[{{"toNode": "{name}", "method": "m"}}]')
        os.utime(path / name, (1_000 + age, 1_000 + age))
    await bench.set(folder=section(path))
    await taken(path, "b")
    assert [request.to_nodes[0] for request in bench.submitted] == ["c", "a", "b"]


async def test_a_file_that_is_renamed_in_is_taken_and_yaml_is(folder, path, short_dir):
    (short_dir / "x.yaml").write_text("- {toNode: ship1, method: REQPing}\n")
    os.rename(short_dir / "x.yaml", path / "x.yaml")
    assert (await taken(path, "x.yaml"))["accepted"]


async def test_a_bad_file_goes_to_failed_and_one_taken_in_part_to_done(folder, path):
    (path / "bad").write_text('[{"toNode": "ship1"}]')
    (path / "half").write_text(PING[:-1] + ", 5]")
    assert (await taken(path, "bad", "failed"))["problems"][0]["key"] == "method"
    answer = await taken(path, "half")
    assert (len(answer["accepted"]), len(answer["problems"])) == (1, 1)
    assert folder.inputs.totals()["folder", "refused"] == 2


@pytest.fixture
def before_looks(monkeypatch):
    """What is called, in a thread, whenever the folder is about to be looked at."""
    calls = []
    look = FolderFiles.list

    def call_and_look(files):
        for call in calls:
            call()
        return look(files)

    monkeypatch.setattr(FolderFiles, "list", call_and_look)
    return calls


async def test_a_file_is_not_taken_while_it_grows(bench, path, before_looks):
    path.mkdir()
    slow = path / "slow"
    looks = 0

    def grow():
        nonlocal looks
        looks += 1
        slow.write_text(" " * looks if looks < 10 else PING)

    slow.touch()
    before_looks.append(grow)
    await bench.set(folder=section(path))
    await until_async(lambda: looks >= 9)
    assert bench.submitted == []
    await until_async(lambda: looks >= 10)
    before_looks.clear()
    await taken(path, "slow")
    assert len(bench.submitted) == 1


async def test_the_same_name_and_the_same_content_again_are_other_messages(folder, path):
    for count in (1, 2, 3):
        (path / "again").write_text(PING)
        await until_async(lambda: len(list((path / "done").glob("again*.json"))) == count)  # noqa: B023
    assert len(folder.submitted) == 3
    assert len({mark.number for mark in folder.control.marks}) == 3


async def test_what_is_no_regular_file_stays_where_it_is(folder, path, short_dir):
    (short_dir / "secret").write_text(PING)
    (path / "link").symlink_to(short_dir / "secret")
    (path / "below").mkdir()
    (path / "below" / "x").write_text(PING)
    os.mkfifo(path / "pipe")
    (path / ".hidden").write_text(PING)
    (path / "dangling").symlink_to("nowhere")
    (path / "last").write_text(PING)
    await taken(path, "last")
    assert len(folder.submitted) == 1
    names = {entry.name for entry in path.iterdir()}
    assert {"link", "below", "pipe", ".hidden", "dangling"} <= names


LEFTOVERS = [
    "job.json~",
    "#job.json#",
    "job.json.filepart",
    "job.json.swp",
    "x.PART",
    "~$job.json",
    "4913",
    "job.json.swn",
    "job.json.save.1",
    "job.json___jb_tmp___",
    "job.json.dpkg-new",
    "job.json.rpmsave",
    "job.json.old",
    "sedAb3dEf",
]


async def test_what_editors_and_uploads_leave_is_not_taken_and_told_once(folder, path, caplog):
    caplog.set_level("INFO")
    for name in LEFTOVERS:
        (path / name).write_text(PING)
    for name in ("job.json", "last"):
        (path / name).write_text(PING)
        await taken(path, name)
    assert len(folder.submitted) == 2
    assert set(LEFTOVERS) <= {entry.name for entry in path.iterdir()}
    told = [record.getMessage() for record in caplog.records if "left lying" in record.getMessage()]
    assert len(told) == len(set(told)) == len(LEFTOVERS)


@pytest.mark.parametrize("where", ["done", "failed"])
async def test_a_link_in_the_place_of_our_directories_leads_nowhere(folder, path, short_dir, where):
    elsewhere = short_dir / "elsewhere"
    elsewhere.mkdir()
    (path / where).rmdir()
    (path / where).symlink_to(elsewhere)
    (path / "a").write_text(PING if where == "done" else "[")
    await until_async(lambda: folder.troubles)
    assert list(elsewhere.iterdir()) == []
    (path / where).unlink()
    await taken(path, "a", where)
    assert len(folder.submitted) <= 1


async def test_names_with_odd_bytes_and_of_full_length_are_taken(folder, path):
    names = [b"\xff\xfe", b"a\nb", b"x" * 255, b" ", b"..a", "ü".encode(), b"-rf", b"%s"]
    for name in names:
        with open(os.path.join(os.fsencode(path), name), "w") as file:
            file.write(PING)
    taken_names = [name for name in names if not name.startswith(b".")]
    await until_async(lambda: len(folder.submitted) == len(taken_names))
    await until_async(lambda: not claims_left(path))
    done = os.listdir(os.fsencode(path) + b"/done")
    assert len(done) == 2 * len(taken_names)
    assert {name[:200] for name in taken_names} <= set(done)


async def test_a_file_beyond_the_bound_goes_to_failed_unread(folder, path):
    await folder.set(max_bytes=2_000)
    (path / "large").write_text(" " * 2_001)
    answer = await taken(path, "large", "failed")
    assert "2000 bytes" in answer["problems"][0]["message"]


async def test_what_was_swapped_for_a_link_in_the_last_moment_is_not_followed(path, short_dir):
    (short_dir / "secret").write_text("precious")
    files = FolderFiles(str(path), "s", time.time)
    files.prepare()
    (path / "x").symlink_to(short_dir / "secret")
    claim = files.claim("x")
    with pytest.raises(Exception, match=r"cannot be read|no regular"):
        files.read(claim, 100)
    files.put_away(claim, "failed", b"{}")
    assert (path / "failed" / "x").is_symlink()


async def test_a_file_that_changes_while_it_is_read_goes_back(path):
    files = FolderFiles(str(path), "s", time.time)
    files.prepare()
    (path / "x").write_text("half")
    claim = files.claim("x")
    (path / "x").write_text("another one of that name")
    files.give_back(claim)
    assert sorted(files.list().files) == sorted(["x", f"x.{claim.number:x}"])
    assert not claims_left(path)


async def test_of_two_daemons_on_one_folder_one_takes_each_file(bench, path, short_dir):
    other = Bench(short_dir)
    other.inputs = other.make("fedcba9876543210")
    other.inputs.start_taking()
    await bench.set(folder=section(path, settle_s=0))
    await other.set(folder=section(path, settle_s=0))
    for number in range(50):
        (path / f"f{number}").write_text(f'[{{"toNode": "n{number}", "method": "m"}}]')
    await until_async(lambda: len(bench.submitted) + len(other.submitted) == 50)
    await until_async(lambda: not claims_left(path))
    everyone = [request.to_nodes[0] for request in bench.submitted + other.submitted]
    assert sorted(everyone) == sorted(f"n{number}" for number in range(50))
    assert bench.troubles == other.troubles == []
    await other.inputs.close()


async def test_files_are_left_to_the_daemon_that_runs_the_node_they_are_from(
    bench, path, short_dir
):
    files = FolderFiles(str(path), "0123456789abcdef", time.time)
    files.prepare()
    (path / "claimed").write_text(PING)
    files.claim("claimed")
    bench.desired.put(dataclasses.replace(bench.desired.value, run_nodes=("ship1", "ship2")))
    await bench.set(from_node="central", folder=section(path, settle_s=0))
    await until_async(lambda: bench.troubles)
    words = (
        "files are left to the daemon that runs central (inputs.from): this one runs ship1, ship2"
    )
    assert bench.troubles == [words]
    assert bench.inputs.status()["folder"].error == words
    (path / "a").write_text(PING)
    other = Bench(short_dir)
    other.inputs = other.make("fedcba9876543210")
    other.inputs.start_taking()
    other.desired.put(dataclasses.replace(other.desired.value, run_nodes=("central",)))
    await other.set(from_node="central", folder=section(path, settle_s=0))
    for name in ("a", "claimed"):
        assert (await taken(path, name))["accepted"]
    assert bench.submitted == []
    assert bench.inputs.status()["folder"].refused == 0
    await other.inputs.close()
    # and it takes them up where the node comes here
    bench.desired.put(dataclasses.replace(bench.desired.value, run_nodes=("central",)))
    (path / "b").write_text(PING)
    assert (await taken(path, "b"))["accepted"]
    assert bench.troubles == [words, None]


async def test_a_full_store_keeps_the_file_until_there_is_room(folder, path):
    folder.control.raises = StoreFull("no room")
    (path / "a").write_text(PING)
    await until_async(lambda: folder.troubles)
    assert folder.inputs.status()["folder"].refused == 0
    assert "no room" in folder.troubles[0]
    assert "no room" in folder.inputs.status()["folder"].error
    folder.control.raises = None
    assert (await taken(path, "a"))["accepted"]
    await until_async(lambda: folder.troubles[-1] is None)
    assert len(folder.submitted) == 1
    assert folder.inputs.status()["folder"].accepted == 1
    assert folder.inputs.status()["folder"].refused == 0


async def test_a_file_claimed_by_a_killed_daemon_is_taken_after_the_restart(bench, path):
    files = FolderFiles(str(path), "0123456789abcdef", time.time)
    files.prepare()
    (path / "a").write_text(PING)
    claim = files.claim("a")
    assert files.list().files == {}
    await bench.set(folder=section(path))
    assert (await taken(path, "a"))["accepted"]
    assert [mark.number for mark in bench.control.marks] == [claim.number]


async def test_a_file_accepted_by_a_killed_daemon_is_put_away_and_not_taken_again(bench, path):
    files = FolderFiles(str(path), "0123456789abcdef", time.time)
    files.prepare()
    (path / "a").write_text(PING)
    claim = files.claim("a")
    bench.control.marks.append(("inputs.folder", claim.number))
    await bench.set(folder=section(path))
    answer = await taken(path, "a")
    assert "interrupted" in answer["warnings"][0]["message"]
    assert bench.submitted == []


async def test_a_claim_that_nobody_can_judge_any_more_goes_to_failed(bench, path):
    files = FolderFiles(str(path), "0123456789abcdef", time.time)
    files.prepare()
    (path / "a").write_text(PING)
    claim = files.claim("a")
    old = Claim((int((time.time() - 90_000) * 1000) << 20) | 7, "a")
    (taking,) = path.glob(".taking-*")
    os.rename(taking / claim.directory, taking / old.directory)
    await bench.set(folder=section(path))
    answer = await taken(path, "a", "failed")
    assert "no longer be told" in answer["problems"][0]["message"]
    assert bench.submitted == []


async def test_a_file_whose_answer_was_there_when_the_daemon_was_killed_lies_beside_it(bench, path):
    files = FolderFiles(str(path), "0123456789abcdef", time.time)
    files.prepare()
    (path / "a").write_text(PING)
    claim = files.claim("a")
    (path / "done" / "a.answer.json").write_text('{"ids": "all"}')
    bench.control.marks.append(("inputs.folder", claim.number))
    await bench.set(folder=section(path))
    await until_async(lambda: not claims_left(path))
    assert sorted(os.listdir(path / "done")) == ["a", "a.answer.json"]
    # of the two it is the one that knows the ids
    assert answer_of(path, "a") == {"ids": "all"}


async def test_an_answer_whose_file_somebody_has_taken_away_is_not_another_files(bench, path):
    files = FolderFiles(str(path), "0123456789abcdef", time.time)
    files.prepare()
    (path / "done" / "a.answer.json").write_text("{}")
    before = time.time() - 10.0
    os.utime(path / "done" / "a.answer.json", (before, before))
    (path / "a").write_text(PING)
    claim = files.claim("a")
    bench.control.marks.append(("inputs.folder", claim.number))
    await bench.set(folder=section(path))
    await until_async(lambda: not claims_left(path))
    number = f"a.{claim.number:x}"
    names = [number, f"{number}.answer.json", "a.answer.json"]
    assert sorted(os.listdir(path / "done")) == sorted(names)
    assert answer_of(path, "a") == {}


async def test_claims_of_another_daemon_are_left_alone(bench, path):
    files = FolderFiles(str(path), "another", time.time)
    files.prepare()
    (path / "a").write_text(PING)
    files.claim("a")
    await bench.set(folder=section(path))
    (path / "b").write_text(PING)
    await taken(path, "b")
    assert len(claims_left(path)) == 1
    assert len(bench.submitted) == 1


async def test_a_folder_that_vanishes_is_made_again(folder, path, short_dir):
    os.rename(path, short_dir / "gone")
    await until_async(lambda: path.exists())
    (path / "a").write_text(PING)
    assert (await taken(path, "a"))["accepted"]


async def test_a_folder_that_cannot_be_used_is_told_and_taken_up_again(folder, path, short_dir):
    os.rename(path, short_dir / "gone")
    path.write_text("in the way")
    await until_async(lambda: folder.troubles)
    path.unlink()
    await until_async(lambda: folder.troubles[-1] is None)
    (path / "a").write_text(PING)
    assert (await taken(path, "a"))["accepted"]


async def test_a_folder_that_cannot_be_made_refuses_the_set(bench, path, short_dir):
    (short_dir / "file").write_text("x")
    for bad in (short_dir / "missing" / "x", short_dir / "file"):
        with pytest.raises(DaemonError, match="folder"):
            await bench.set(folder=section(bad))
    assert bench.inputs.status() == {}


async def test_what_was_put_away_is_deleted_after_its_time(bench, path):
    now = [1_000_000.0]  # by far not what the wall clock says: it decides nothing
    files = FolderFiles(str(path), "s", lambda: now[0])
    files.prepare()
    (path / "a").write_text(PING)
    files.put_away(files.claim("a"), "done", b"{}")
    (path / "done" / "kept").mkdir()
    now[0] += 59
    files.sweep(60)
    assert (path / "done" / "a").exists()
    now[0] += 1
    files.sweep(60)
    assert os.listdir(path / "done") == ["kept"]


async def test_what_lies_there_without_a_time_of_ours_is_kept_from_when_it_was_seen(bench, path):
    now = [1_000_000.0]
    files = FolderFiles(str(path), "s", lambda: now[0])
    files.prepare()
    (path / "done" / "alone").write_text(PING)
    (path / "failed" / "b").write_text(PING)
    (path / "failed" / "b.answer.json").write_text("{}")
    os.utime(path / "failed" / "b.answer.json", (2e9, 2e9))  # of a clock that was wrong then
    for _ in range(2):
        files.sweep(60)
        now[0] += 59
    assert sorted(os.listdir(path / "done")) == ["alone"]
    assert sorted(os.listdir(path / "failed")) == ["b", "b.answer.json"]
    now[0] += 1
    files.sweep(60)
    assert os.listdir(path / "done") == os.listdir(path / "failed") == []


async def test_nothing_is_taken_before_the_daemon_works_nor_after_the_folder_went(
    bench, path, before_looks, monkeypatch
):
    hinted, looks = asyncio.Event(), []
    watch = folder_module.watch_folder

    def watch_and_tell(path, *, on_hint, stop):
        return watch(path, on_hint=lambda: (on_hint(), hinted.set()), stop=stop)

    monkeypatch.setattr(folder_module, "watch_folder", watch_and_tell)
    before_looks.append(lambda: looks.append(bench.inputs.importer.opened.is_set()))
    bench.inputs.importer.opened.clear()
    await bench.set(folder=section(path, settle_s=0))

    def write_anew():  # a watch that is not armed yet gives no event
        (path / "a").write_text(PING)
        return hinted.is_set()

    await until_async(write_anew)
    assert looks == []
    bench.inputs.start_taking()
    await taken(path, "a")
    assert all(looks)
    await bench.set(folder=None)
    await bench.inputs.close()
    assert [task for task in asyncio.all_tasks() if "folder" in task.get_name()] == []


async def test_a_folder_moves_with_the_config(folder, path, short_dir):
    await folder.set(folder=section(short_dir / "other"))
    (short_dir / "other" / "a").write_text(PING)
    await taken(short_dir / "other", "a")
    (path / "b").write_text(PING)
    (short_dir / "other" / "c").write_text(PING)
    await taken(short_dir / "other", "c")
    assert (path / "b").exists()

    def names():
        return [task.get_name() for task in asyncio.all_tasks()]

    await until_async(lambda: names().count("input folder") == 1, tell=names)


async def test_hints_make_it_quick_where_the_poll_is_slow(bench, path):
    await bench.set(folder=section(path, settle_s=0.01, poll_interval_s=60))
    (path / "first").write_text(PING)
    await taken(path, "first")
    (path / "second").write_text(PING)
    await taken(path, "second")


def test_settings_are_off_by_default():
    settings = InputSettings()
    assert (settings.socket, settings.tcp, settings.http, settings.folder) == (None,) * 4
