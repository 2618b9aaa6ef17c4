"""The table: each way into force, each refusal, and which set is in force afterwards.

Real files, history and repositories, toy workers. What the package's scripts ask before an upgrade or a boot
(`run --check`) is asked here by what it calls, `predict_start`.

    stays   what was in force before stays, and the refusal is told with its code
    taken   what the files hold comes into force: this is what a restart is for
    ends    there is nothing to fall back to, and the start ends with the problems
"""

import asyncio
import os

import pytest

from appliance.core.run_options import RunOptions
from appliance.daemon.run import predict_start
from appliance.errors import ConfigError
from appliance.reconcile.reload_result import find_problems_of
from tests.component import test_ways_into_force as ways_into_force
from tests.component.test_pool import ToyWorker
from tests.component.test_ways_into_force import (
    GOOD,
    OTHER,
    THIRD,
    TRIAL,
    Node,
)
from tests.support.waiting import until_async
from tests.system.test_git_source import Repository

ANCIENT = GOOD.replace("REQHello: {}", "REQTailFile: {allow_paths: [/x]}")


class SignedNode(Node):
    """Its files are a repository's, and only signed commits are taken."""

    def __init__(self, tmp_path):
        super().__init__(tmp_path)
        self.repository = Repository(tmp_path)
        self.files = self.repository.folder
        self.file = self.files / "fleet.yaml"
        self.ancient = self.write(ANCIENT)

    def write(self, text):
        key = self.repository.public("anna")
        self.file.write_text(f"{text}config: {{source: git, signed_by: ['{key}']}}\n")
        return self.repository.commit("anna")


def needs_restart(node):
    node.write(OTHER + f"state: {{dir: {node.state.parent / 'elsewhere'}}}\n")


def breaks_unforeseen(node):
    part = node.part("E303")

    async def stage(*_, **how):
        if how["insist"]:
            raise RuntimeError("nobody thought of that")
        return ways_into_force.Moved(part, part.at)

    part.stage = stage
    node.write(OTHER + 'admin: {listen: "127.0.0.1:1"}\n')


def emptied_file(node):
    """Beside the file that all others write; made by `prepare_second_file`."""
    (node.files / "second.yaml").write_text("# cut off\n")


def prepare_second_file(node):
    node.asked_nodes = ()
    (node.files / "second.yaml").write_text("nodes:\n  ship2: {subscribe: {REQPing: {}}}\n")


def unsigned_commit(node):
    edited_file(node)
    node.repository.commit()


def edited_file(node):
    text = node.file.read_text()
    node.file.write_text(text.replace("REQToFile: {}", "REQTailFile: {allow_paths: [/y]}"))


def older_commit(node):
    node.repository.git("checkout", "-q", node.ancient)


def not_at_all(_node):
    pass


START, RELOAD, RESTART, BOOT, UPGRADE = "start", "reload", "restart", "boot", "upgrade"
ROLLBACK, TRIAL_END, IN_TRIAL = "rollback", "trial's end", "restart in a trial"
WAYS = (START, RELOAD, RESTART, BOOT, UPGRADE, ROLLBACK, TRIAL_END, IN_TRIAL)
"""The columns."""

of_files = ways_into_force
EVERYWHERE = {"start": "ends"}
FIRST = {"start": "taken"}
"""At a first start there is nothing to compare with. Its parts are built for the set itself, and what cannot be had then
ends the daemon, see `tests.system`.
"""
TABLE = {
    # refusal: (code, what `run --check` tells, what is not "stays")
    of_files.refuse_mistake: ("E101", "E101", EVERYWHERE),
    of_files.refuse_missing: ("E001", "E001", EVERYWHERE),
    of_files.refuse_empty: ("E103", "E103", EVERYWHERE),
    of_files.refuse_node_gone: ("E305", "E305", EVERYWHERE),
    of_files.refuse_no_work_tree: ("E311", "E311", EVERYWHERE),
    of_files.refuse_most_cancelled: ("E302", "E302", FIRST),
    of_files.refuse_listener: ("E303", None, FIRST),
    of_files.refuse_broker: ("E304", None, FIRST),
    of_files.refuse_input: ("E307", None, FIRST),
    breaks_unforeseen: ("E306", None, FIRST),
    emptied_file: ("E308", "E308", FIRST),
    needs_restart: (
        "E301",
        None,
        dict.fromkeys((START, RESTART, BOOT, UPGRADE, IN_TRIAL), "taken"),
    ),
    unsigned_commit: ("E312", "E312", EVERYWHERE),
    edited_file: ("E313", "E313", EVERYWHERE),
    older_commit: ("E314", "E314", FIRST),
}
SIGNED = {unsigned_commit, edited_file, older_commit}
CELLS = [
    pytest.param(refuse, way, code, cells.get(way, "stays"), id=f"{refuse.__name__}-{way}")
    for refuse, (code, _, cells) in TABLE.items()
    for way in WAYS
]


@pytest.fixture
async def make_node(tmp_path):
    ToyWorker.alive, ToyWorker.refuses = set(), set()
    made = []

    def make(refuse):
        made.append((SignedNode if refuse in SIGNED else Node)(tmp_path))
        if refuse is emptied_file:
            prepare_second_file(made[0])
        return made[0]

    yield make
    ToyWorker.refuses = set()
    for node in made:
        await node.stop()


def check_start(node):
    """The codes of what `run --check` would tell."""
    options = RunOptions(paths=(str(node.files),), nodes=("ship1",), state_dir=str(node.state))
    try:
        problems = predict_start(options)[2]
    except ConfigError as error:
        problems = find_problems_of(error)
    return {problem.code for problem in problems}


def what_is_kept(node):
    """Name and content of each file of the state."""
    files = sorted(path for path in node.state.rglob("*") if path.is_file())
    return [(path, path.read_bytes()) for path in files]


async def go(node, way, refuse):
    """Bring a good set into force, spoil it, go the way; the digest that was in force before."""
    if way == START:
        node.write(GOOD)
        refuse(node)
        await node.start()
        return None
    node.write(THIRD)
    await node.start()
    third = node.reconciler.applied.digest
    node.write(GOOD)
    assert (await node.reload()).result == "applied"
    before = node.reconciler.applied.digest
    if way in (TRIAL_END, IN_TRIAL):
        ToyWorker.refuses = {"REQPong"} if way == TRIAL_END else set()
        node.write(TRIAL.replace("60s", "300ms") if way == TRIAL_END else TRIAL)
        assert (await node.reload()).result == "applied"
        tried = node.reconciler.applied.digest
    refuse(node)
    if way == UPGRADE:
        # before it the package asks, by a process of its own; what only the daemon can find out, it is asked itself.
        # NB: the daemon does not run meanwhile, which writes down what its own looks find
        await node.stop()
        kept = what_is_kept(node)
        asked = await asyncio.to_thread(check_start, node)
        assert TABLE[refuse][1] in (None, *asked)
        assert what_is_kept(node) == kept, "asking changes nothing"
    if way in (RESTART, BOOT, UPGRADE, IN_TRIAL):
        await node.restart()
    if way == BOOT:
        await node.restart()
    if way in (RELOAD, ROLLBACK, TRIAL_END):
        await node.reload()
    if way == ROLLBACK:
        assert (await node.roll_back()).result == "applied"
        return third
    if way == TRIAL_END:
        await until_async(lambda: node.reconciler.last_attempt.result == "reverted")
    return tried if way == IN_TRIAL else before


@pytest.mark.parametrize(("refuse", "way", "code", "outcome"), CELLS)
async def test_after_each_way_and_each_refusal_the_right_set_is_in_force(
    make_node, refuse, way, code, outcome
):
    node = make_node(refuse)
    if outcome == "ends":
        with pytest.raises(ConfigError) as ended:
            await go(node, way, refuse)
        assert code in {problem.code for problem in find_problems_of(ended.value)}
        assert node.running is None
        return
    before = await go(node, way, refuse)
    applied, attempt = node.reconciler.applied, node.reconciler.last_attempt
    if outcome == "stays":
        assert applied.digest == before
        # what was to be confirmed still is: over the restart, and whatever the files hold
        assert (node.reconciler.rollback.trial is not None) == (way == IN_TRIAL)
        if way not in (ROLLBACK, TRIAL_END):  # told before, with the look
            assert (attempt.result, code in node.codes) == ("refused", True)
        else:
            assert node.reconciler.rollback.pin.digest == before
        assert all(part.at is None for part in node.parts), "nothing of it was kept moved"
        if refuse is not needs_restart:
            # the same after another one, whatever becomes of the refusal
            await node.restart()
            assert node.reconciler.applied.digest == before
    else:
        assert (attempt.result, applied.digest) == ("applied", node.source.load().digest)
    assert {spec.method for spec in applied.desired.workers.values()} == node.methods


def test_the_table_has_every_refusal():
    """E309 is none, and E310 is a column: the trial's end."""
    from appliance.config.error_codes import ERROR_CODES

    known = {code for code in ERROR_CODES if code.startswith("E3")}
    assert known - {code for code, _, _ in TABLE.values()} == {"E310"}


def links_to_nothing(node):
    (node.files / "second.yaml").symlink_to("gone.yaml")


def links_to_itself(node):
    (node.files / "second.yaml").symlink_to("second.yaml")


def waits_for_a_writer(node):
    os.mkfifo(node.files / "second.yaml")


def has_no_end(node):
    (node.files / "second.yaml").symlink_to("/dev/zero")


def is_huge(node):
    with (node.files / "second.yaml").open("wb") as file:
        file.truncate(1 << 33)  # a hole: nothing of it is on the disk


def is_no_text(node):
    (node.files / "second.yaml").write_bytes(b"nodes: {caf\xe9: {}}\n")


def is_not_written_to_the_end(node):
    (node.files / "second.yaml").write_text("nodes: {ship2: {subscribe: {REQPi")


def has_a_name_that_is_no_text(node):
    (node.files / os.fsdecode(b"caf\xe9.yaml")).write_text("nodes: {\n")


def is_a_file_where_the_folder_was(node):
    node.remove_files()
    node.files.write_text("nodes: {\n")


def leads_elsewhere(node):
    node.remove_files()
    node.files.symlink_to(node.files.parent / "gone")


@pytest.mark.parametrize("way", [RELOAD, RESTART, BOOT, IN_TRIAL])
@pytest.mark.parametrize(
    "spoil",
    [
        links_to_nothing,
        links_to_itself,
        waits_for_a_writer,
        has_no_end,
        is_huge,
        is_no_text,
        is_not_written_to_the_end,
        has_a_name_that_is_no_text,
        is_a_file_where_the_folder_was,
        leads_elsewhere,
    ],
)
async def test_files_that_cannot_be_read_take_nothing_out_of_force(make_node, spoil, way):
    node = make_node(spoil)
    before = await asyncio.wait_for(go(node, way, spoil), 30)
    assert node.reconciler.applied.digest == before
    assert node.reconciler.last_attempt.result == "refused"
    assert {
        spec.method for spec in node.reconciler.applied.desired.workers.values()
    } == node.methods
    assert (node.reconciler.rollback.trial is not None) == (way == IN_TRIAL)
