"""A config from git: revision, branch and dirty flag; and only commits that an allowed key signed."""

import json
import os
import subprocess

import pytest

from appliance.config import git
from appliance.config.git import GitTrouble, parse_key, read_commit
from appliance.config.revision import SignedCommit
from appliance.reconcile import source as source_module
from appliance.reconcile.source import FileConfigSource
from tests.support import forked
from tests.support.appliance import Appliance

BASE = """
version: 1
broker: {embedded: true}
reload: {settle: 20ms, poll_interval: 100ms}
"""
NODES = "nodes: {{ship1: {{subscribe: {{REQPing: {{}}{more}}}}}}}\n"
ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
}  # fmt: skip


class Repository:
    """A clone with a config in a folder of its own."""

    def __init__(self, root):
        self.root = root
        self.clock = {}
        self.folder = root / "repo" / "fleet"
        self.folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.keys = {}
        for name in ("anna", "bert"):
            path = root / name
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True
            )
            self.keys[name] = path

    def git(self, *words, text=None):
        environment = {**os.environ, **ENVIRONMENT, **self.clock}
        return subprocess.run(
            ["git", "-C", self.root / "repo", *words],
            env=environment,
            input=text,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def public(self, name):
        return (self.root / f"{name}.pub").read_text().strip()

    def write(self, text, name="fleet.yaml"):
        (self.folder / name).write_text(text)

    def commit(self, signer=None, message="m", at=None):
        self.git("add", "-A")
        if at is not None:
            self.clock = {"GIT_COMMITTER_DATE": f"@{at} +0000", "GIT_AUTHOR_DATE": f"@{at} +0000"}
        sign = (
            ["-c", "gpg.format=ssh", "-c", f"user.signingkey={self.keys[signer]}"] if signer else []
        )
        self.git(*sign, "commit", "-q", "--allow-empty", "-m", message, *(["-S"] if signer else []))
        return self.git("rev-parse", "HEAD")

    def texts(self):
        return {str(path): path.read_text() for path in self.folder.rglob("*.yaml")}

    def facts(self, *signers):
        return read_commit(
            [str(self.folder)], self.texts(), [self.public(name) for name in signers]
        )


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def test_files_that_differ_from_the_commit_are_named(repository):
    repository.write("a: 1\n")
    repository.write("b: 1\n", "b.yaml")
    commit = repository.commit()
    facts = repository.facts()
    assert (facts.commit, facts.differing) == (commit, ())
    repository.write("a: 2\n")
    repository.write("c: 1\n", "new.yaml")
    (repository.folder / "b.yaml").unlink()
    (repository.folder / "notes.txt").write_text("no config")
    names = [os.path.basename(name) for name in repository.facts().differing]
    assert sorted(names) == ["b.yaml", "fleet.yaml", "new.yaml"]
    # a file that another commit brings is judged against that one
    repository.commit()
    assert repository.facts().differing == ()


@pytest.mark.parametrize("signers", [(), ("anna",)])
def test_a_set_is_called_after_the_commit_that_its_files_were_compared_with(
    repository, monkeypatch, signers
):
    repository.write(text(repository, signers=signers))
    first = repository.commit("anna")
    repository.write(text(repository, more=", REQPong: {}", signers=signers))

    def commit_first(*args):
        made.append(repository.commit("anna"))
        return read_commit(*args)

    made = []
    # between a look at where the work tree stands and the comparison somebody commits what was read before
    monkeypatch.setattr(source_module, "read_commit", commit_first)
    source = FileConfigSource([str(repository.folder)], nodes=(), all_nodes=True, hostname="ship1")
    found = source.load()
    assert found.revision == made[0] != first
    assert (found.branch, found.dirty) == ("main", False)


def test_a_tree_that_holds_itself_again_and_again_is_refused(repository, monkeypatch):
    monkeypatch.setattr(git, "_MAX_TREE_ENTRIES", 10_000)
    repository.write("a: 1\n")
    repository.commit()
    tree = repository.git("hash-object", "-t", "tree", "-w", "/dev/null")
    for _ in range(5):
        text = "".join(f"040000 tree {tree}\tfolder{i:03}\n" for i in range(1_000))
        tree = repository.git("mktree", text=text)
    commit = repository.git("commit-tree", "-m", "m", tree)
    repository.git("update-ref", "HEAD", commit)
    with pytest.raises(GitTrouble, match="too large for a config"):
        read_commit([str(repository.root / "repo")], {}, [])


def test_a_signature_counts_only_if_an_allowed_key_made_it_over_this_commit(repository):
    repository.write("a: 1\n")
    repository.commit()
    assert repository.facts("anna").signature_problem == "the commit is not signed"
    repository.commit("anna")
    assert repository.facts("anna", "bert").signer == "anna"
    assert "key that is not allowed: SHA256:" in repository.facts("bert").signature_problem
    # the signature of one commit on the content of another
    signed = repository.git("cat-file", "commit", "HEAD")
    forged = signed.replace("\n\nm", "\n\nevil")
    environment = {**os.environ, **ENVIRONMENT}
    made = subprocess.run(
        ["git", "-C", repository.root / "repo", "hash-object", "-t", "commit", "-w", "--stdin"],
        input=forged + "\n", env=environment, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    repository.git("update-ref", "HEAD", made)
    assert (
        repository.facts("anna").signature_problem
        == "the commit's signature does not fit the commit"
    )


@pytest.mark.parametrize("damage", ["A", "=", "\n\n", "é", "A" * 20_000])
def test_a_damaged_signature_is_refused_and_no_error(repository, damage):
    repository.write("a: 1\n")
    repository.commit("anna")
    signed = repository.git("cat-file", "commit", "HEAD")
    place = signed.index("BEGIN SSH SIGNATURE") + 60
    environment = {**os.environ, **ENVIRONMENT}
    made = subprocess.run(
        ["git", "-C", repository.root / "repo", "hash-object", "-t", "commit", "--literally", "-w", "--stdin"],
        input=signed[:place] + damage + signed[place:] + "\n",
        env=environment, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    repository.git("update-ref", "HEAD", made)
    try:
        facts = repository.facts("anna")
    except GitTrouble:
        return
    assert facts.signer is None


@pytest.mark.parametrize(
    "line", ["", "ssh-rsa AAAA x", "ssh-ed25519", "ssh-ed25519 !!!!", "ssh-ed25519 AAAA x"]
)
def test_what_is_no_ed25519_key_is_refused(line):
    with pytest.raises(ValueError, match=r"key|expected"):
        parse_key(line)


def start(repository, text, *args):
    repository.write(text)
    commit = repository.commit("anna")
    daemon = Appliance(None, repository.root / "daemon", config_path=repository.folder)
    daemon.args = list(args)
    return daemon, commit


def text(repository, more="", source="source: git", signers=()):
    keys = (
        f", signed_by: [{', '.join(repository.public(name) for name in signers)}]"
        if signers
        else ""
    )
    return f"{BASE}config: {{{source}{keys}}}\n{NODES.format(more=more)}"


def test_status_metrics_and_a_linked_work_tree_show_commit_branch_and_dirt(repository):
    daemon, commit = start(repository, text(repository))
    with daemon:
        config = daemon.status()["config"]
        assert (config["revision"], config["branch"], config["dirty"]) == (commit, "main", False)
        repository.write(text(repository, more=", REQPong: {}"))
        daemon.wait_until(lambda status: status["config"]["dirty"])
        exposition = daemon.request("GET", "/metrics")[1]
        digest = daemon.status()["config"]["digest"]
        labels = f'branch="main",digest="{digest}",dirty="true",revision="{commit}"'
        assert f"appliance_config_info{{{labels}}} 1.0" in exposition
        newer = repository.commit()
        verdict = daemon.reload()
        assert verdict["result"] == "unchanged"
        config = daemon.status()["config"]
        assert (config["revision"], config["dirty"]) == (newer, False)


def plan_codes(daemon, path):
    done = forked.run(["plan", str(path), "-o", "json", "--state-dir", str(daemon.state)])
    found = json.loads(done.stdout)
    return done.returncode, [one["code"] for one in found["problems"] + found.get("warnings", [])]


def test_only_signed_commits_are_taken_and_only_as_they_are_committed(repository):
    daemon, first = start(repository, text(repository, signers=["anna"]))
    with daemon:
        assert daemon.status()["config"]["revision"] == first
        # an edit that nobody committed; it may not let itself in by changing the rule
        repository.write(text(repository, more=", REQPong: {}", source="source: files"))
        verdict = daemon.reload()
        assert [problem["code"] for problem in verdict["problems"]] == ["E313"]
        # a plan of the same files, named or sent, is judged as the look is; of others it says what it cannot judge
        assert plan_codes(daemon, daemon.config_path) == (78, ["E313"])
        repository.commit()
        assert [problem["code"] for problem in daemon.reload()["problems"]] == ["E312"]
        assert plan_codes(daemon, daemon.config_path) == (78, ["E312"])
        other = repository.root / "other.yaml"
        other.write_text(text(repository, more=", REQToConsole: {}", source="source: files"))
        assert plan_codes(daemon, other) == (2, ["W303"])
        repository.commit("bert")
        verdict = daemon.reload()
        assert "not allowed" in verdict["problems"][0]["message"]
        assert daemon.status()["config"]["revision"] == first
        repository.write(text(repository, more=", REQPong: {}", signers=["anna", "bert"]))
        second = repository.commit("anna")
        daemon.wait_until(lambda status: status["config"]["revision"] == second)
        repository.write(text(repository, signers=["bert"]))
        third = repository.commit("bert")
        status = daemon.wait_until(lambda status: status["config"]["revision"] == third)
        assert status["generation"] == 3
        record = daemon.request("GET", f"/api/v1/history/{second}")[1]
        assert record["author"] == "a <a@example.com>, signed by anna"


def test_an_older_signed_commit_is_not_taken_again_unless_it_is_forced(repository):
    daemon, first = start(repository, text(repository, signers=["anna"]))
    with daemon:
        repository.write(text(repository, more=", REQPong: {}", signers=["anna"]))
        second = repository.commit("anna")
        daemon.wait_until(lambda status: status["config"]["revision"] == second)
        repository.git("reset", "-q", "--hard", first)
        verdict = daemon.reload()
        assert [problem["code"] for problem in verdict["problems"]] == ["E314"]
        assert first[:12] in verdict["problems"][0]["message"]
        assert daemon.status()["config"]["revision"] == second
    # nor does a restart take it
    assert daemon.process.wait() == 0
    with daemon:
        config = daemon.status()["config"]
        assert config["revision"] == second
        assert [problem["code"] for problem in config["last_attempt"]["problems"]] == ["E314"]
        # who goes back by a commit of his own says so
        repository.git("reset", "-q", "--hard", second)
        repository.write(text(repository, signers=["anna"]))
        third = repository.commit("anna")
        daemon.wait_until(lambda status: status["config"]["revision"] == third)
        repository.git("reset", "-q", "--hard", second)
        assert daemon.reload()["result"] == "refused"
        assert daemon.reload(force=True)["result"] == "applied"
        assert daemon.status()["config"]["revision"] == second


def test_keys_given_at_the_start_cannot_be_widened_by_the_config(repository):
    daemon, first = start(
        repository, text(repository), "--signed-by", str(repository.root / "anna.pub")
    )
    with daemon:
        repository.write(text(repository, more=", REQPong: {}", signers=["bert"]))
        repository.commit("bert")
        assert [problem["code"] for problem in daemon.reload()["problems"]] == ["E312"]
        assert daemon.status()["config"]["revision"] == first
    # nor does a restart take what the reload refused
    assert daemon.process.wait() == 0
    with daemon:
        config = daemon.status()["config"]
        assert config["revision"] == first
        assert [problem["code"] for problem in config["last_attempt"]["problems"]] == ["E312"]


def test_a_config_outside_of_git_is_refused_where_git_is_asked_for(tmp_path):
    daemon = Appliance(f"{BASE}config: {{source: git}}\n{NODES.format(more='')}", tmp_path)
    daemon.spawn()
    assert daemon.process.wait(60) == 78
    assert "E311" in daemon.log()


def test_a_commit_that_changes_no_file_of_the_config_is_noticed_all_the_same(repository):
    daemon, _ = start(repository, text(repository))
    with daemon:
        repository.write(text(repository, more=", REQPong: {}"))
        daemon.wait_until(lambda status: status["config"]["dirty"])
        newer = repository.commit()
        status = daemon.wait_until(lambda status: status["config"]["revision"] == newer)
        assert (status["config"]["dirty"], status["generation"]) == (False, 2)
        (repository.folder.parent / "README").write_text("elsewhere")
        newest = repository.commit()
        daemon.wait_until(lambda status: status["config"]["revision"] == newest)
        repository.git("switch", "-q", "-c", "work")
        daemon.wait_until(lambda status: status["config"]["branch"] == "work")


def test_what_git_pull_brings_is_taken_though_the_commit_moves_after_the_files(repository):
    daemon, _ = start(repository, text(repository, signers=["anna"]))
    with daemon:
        repository.write(text(repository, more=", REQPong: {}", signers=["anna"]))
        daemon.wait_until(lambda status: status["config"]["last_attempt"]["result"] == "refused")
        commit = repository.commit("anna")
        status = daemon.wait_until(
            lambda status: status["config"]["last_attempt"]["result"] == "applied"
        )
        assert (status["config"]["revision"], status["generation"]) == (commit, 2)


def test_the_history_tells_dirt_and_what_was_refused_and_a_revision_means_the_clean_set(repository):
    daemon, commit = start(repository, text(repository))
    with daemon:
        clean = daemon.status()["config"]["digest"]
        repository.write(text(repository, more=", REQPong: {}"))
        daemon.wait_until(lambda status: status["generation"] == 2)
        repository.write(text(repository, more=", REQPnog: {}"))
        verdict = daemon.reload()
        records = daemon.request("GET", "/api/v1/history")[1]["records"]
        shown = [
            (item["result"], item["revision"], item["branch"], item["dirty"]) for item in records
        ]
        assert shown == [("refused", commit, "main", None), ("applied", commit, "main", True),
                         ("applied", commit, "main", False)]  # fmt: skip
        assert f"uid {os.getuid()}" in records[0]["by"] == verdict["by"]
        diff = daemon.request("GET", f"/api/v1/history/{records[0]['number']}")[1]["diff"]
        assert "-nodes: {ship1: {subscribe: {REQPing: {}, REQPong: {}}}}" in diff
        assert "+nodes: {ship1: {subscribe: {REQPing: {}, REQPnog: {}}}}" in diff
        verdict = daemon.request("POST", "/api/v1/rollback", {"to": commit[:8]})[1]
        assert (verdict["digest"], verdict["pinned"]) == (clean, True)
        config = daemon.status()["config"]
        assert (config["revision"], config["branch"], config["dirty"]) == (commit, "main", False)
        # back to what the files say: that is no pin
        repository.write(text(repository))
        daemon.wait_until(lambda status: status["config"]["pinned"] is None)


def test_git_syncs_link_moves_to_a_whole_new_checkout_and_the_daemon_follows(repository):
    """As git-sync does: a work tree per commit in a hidden folder, one link, the old work tree removed."""
    root = repository.root / "git"
    root.mkdir()

    def sync():
        commit = repository.git("rev-parse", "HEAD")
        repository.git(
            "worktree", "add", "-q", "--detach", str(root / ".worktrees" / commit), commit
        )
        link = root / "tmp-link"
        link.symlink_to(f".worktrees/{commit}")
        before = (root / "current").resolve() if (root / "current").exists() else None
        link.replace(root / "current")
        if before is not None:
            repository.git("worktree", "remove", "--force", str(before))
        return commit

    repository.write(text(repository))
    repository.commit("anna")
    first = sync()
    daemon = Appliance(None, repository.root / "daemon", config_path=root / "current" / "fleet")
    daemon.args = ["--signed-by", str(repository.root / "anna.pub")]
    with daemon:
        config = daemon.status()["config"]
        assert (config["revision"], config["branch"], config["dirty"]) == (first, None, False)
        repository.write(text(repository, more=", REQPong: {}"))
        repository.commit("anna")
        second = sync()
        config = daemon.wait_until(lambda status: status["config"]["revision"] == second)["config"]
        assert config["dirty"] is False
        repository.write(text(repository, more=", REQToFile: {}"))
        repository.commit("bert")
        sync()
        daemon.wait_until(lambda status: status["config"]["last_attempt"]["result"] == "refused")
        assert daemon.status()["config"]["revision"] == second
        repository.commit("anna")
        fourth = sync()
        daemon.wait_until(lambda status: status["config"]["revision"] == fourth)


def test_hellos_tell_commit_branch_and_dirt(repository):
    nodes = """
nodes:
  central: {subscribe: {REQHello: {}}}
  ship1: {publish: {hello: {to: central, method: REQHello, every: 1s}}}
"""
    daemon, commit = start(repository, f"{BASE}config: {{source: git}}\n{nodes}")

    def told(status):
        words = ("revision", "branch", "dirty")
        return [tuple(item.get(word) for word in words) for item in status["fleet"]]

    with daemon:
        daemon.wait_until(lambda status: told(status) == [(commit, "main", False)])
        repository.write(f"{BASE}config: {{source: git}}\n{nodes}# edited\n")
        daemon.wait_until(lambda status: told(status) == [(commit, "main", True)])


def test_a_file_that_links_to_another_of_the_commit_is_as_the_commit_has_it(repository):
    repository.write("a: 1\n")
    shared = repository.folder.parent / "shared"
    shared.mkdir()
    (shared / "more.txt").write_text("b: 1\n")
    link = repository.folder / "more.yaml"
    link.symlink_to("../shared/more.txt")
    repository.commit()
    assert repository.facts().differing == ()
    (shared / "more.txt").write_text("b: 2\n")
    assert repository.facts().differing == (str(link),)
    (shared / "more.txt").write_text("b: 1\n")
    link.unlink()
    assert repository.facts().differing == (str(link),)


def test_without_asking_for_git_an_edit_on_top_of_the_commit_is_seen_all_the_same(repository):
    repository.write(f"{BASE}{NODES.format(more='')}")
    repository.commit()
    with Appliance(
        None, repository.root / "node", config_path=repository.folder / "fleet.yaml"
    ) as daemon:
        assert daemon.status()["config"]["dirty"] is False
        repository.write(f"{BASE}{NODES.format(more=', REQPong: {}')}")
        daemon.reload()
        assert daemon.status()["config"]["dirty"] is True


def is_older(repository, than, at=None, folder=None):
    """Whether the commit that is checked out counts as older than another one, committed `at`."""
    folder = folder or repository.folder
    facts = read_commit([str(folder)], {}, [repository.public("anna")], SignedCommit(than, at))
    return facts.is_older


@pytest.fixture
def story(repository):
    """Three commits of one branch, a minute apart, and two of other branches that grew from the first."""
    commits = {}
    for minute, (name, text) in enumerate(
        [("first", "a: 1"), ("second", "a: 2"), ("third", "a: 1")]
    ):
        repository.write(f"{text}\n")
        commits[name] = repository.commit("anna", name, at=1_000 + 60 * minute)
    for name, at in (("old branch", 1_030), ("new branch", 2_000)):
        repository.git("checkout", "-q", commits["first"])
        repository.write(f"b: {at}\n")
        commits[name] = repository.commit("anna", name, at=at)
    return repository, commits


@pytest.mark.parametrize(
    ("name", "older"),
    [
        ("first", True),
        ("second", True),
        ("third", False),
        ("old branch", True),
        ("new branch", False),
    ],
)
def test_a_commit_is_older_that_leads_to_the_one_in_force_or_was_made_before_it_elsewhere(
    story, name, older
):
    repository, commits = story
    repository.git("checkout", "-q", commits[name])
    assert is_older(repository, commits["third"], 1_120.0) is older
    # without its time only what leads there is known
    assert is_older(repository, commits["third"]) is (older and name != "old branch")


def test_a_commit_that_follows_is_not_older_whatever_its_clock_said(story):
    repository, commits = story
    repository.git("checkout", "-q", commits["third"])
    repository.commit("anna", "nothing changes", at=500)
    assert not is_older(repository, commits["third"], 1_120.0)


def test_a_commit_made_anew_is_not_older_and_one_that_is_gone_is_told_by_its_time(story):
    repository, commits = story
    repository.git("checkout", "-q", commits["second"])
    repository.commit("anna", "amended", at=1_500)
    assert not is_older(repository, commits["third"], 1_120.0)
    assert not is_older(repository, "0" * 40, 1_120.0)
    assert is_older(repository, "0" * 40, 1_600.0)
    assert not is_older(repository, "0" * 40)


def test_a_shallow_clone_tells_by_the_time_what_its_history_does_not_hold(story):
    repository, commits = story
    clone = repository.root / "clone"
    for name, older in (("second", True), ("third", False), ("new branch", False)):
        repository.git("branch", "-f", "shown", commits[name])
        url = f"file://{repository.root / 'repo'}"
        repository.git("clone", "-q", "--depth", "1", "--branch", "shown", url, str(clone))
        assert is_older(repository, commits["third"], 1_120.0, clone / "fleet") is older
        subprocess.run(["rm", "-r", clone], check=True)


def test_an_older_commit_with_the_same_files_opens_no_door_to_what_was_taken_back(repository):
    key = repository.public("anna")
    signed = BASE + f"config: {{source: git, signed_by: ['{key}']}}\n"
    good, bad = (signed + NODES.format(more=more) for more in ("", ", REQPong: {}"))
    commits = []
    for minute, text in enumerate((good, bad, good)):  # the third takes the second back
        repository.write(text)
        commits.append(repository.commit("anna", at=1_000 + 60 * minute))
    daemon = Appliance(None, repository.root / "daemon", config_path=repository.folder)

    def codes():
        return [
            problem["code"] for problem in daemon.status()["config"]["last_attempt"]["problems"]
        ]

    with daemon:
        repository.git("checkout", "-q", commits[0])
        assert daemon.reload()["result"] == "unchanged"  # the files are the same
        repository.git("checkout", "-q", commits[1])
        assert daemon.reload()["result"] == "refused"
        assert codes() == ["E314"]
        repository.git("checkout", "-q", commits[0])
        assert daemon.reload()["result"] == "unchanged"
        assert daemon.stop() == 0
        daemon.start()
        repository.git("checkout", "-q", commits[1])
        assert daemon.reload()["result"] == "refused"
        assert codes() == ["E314"]
        assert daemon.stop() == 0
        daemon.start()
        assert codes() == ["E314"]
        assert daemon.reload(force=True)["result"] == "applied"


def test_doctor_knows_who_signs_for_a_daemon_and_whether_others_may_change_that(
    repository, tmp_path
):
    signers = tmp_path / "signers"
    signers.write_text(repository.public("anna") + "\n")
    signers.chmod(0o644)
    repository.write(text(repository))
    repository.commit("anna")
    daemon = Appliance(
        None, tmp_path / "node", config_path=repository.folder, args=["--signed-by", str(signers)]
    )

    def look():
        done = forked.run(
            ["doctor", str(repository.folder), "--state-dir", str(daemon.state), "-o", "json"]
        )
        return {point["name"]: point for point in json.loads(done.stdout)["points"]}

    with daemon:
        assert daemon.status()["config"]["signers"] == str(signers)
        points = look()
        assert (points["source"]["grade"], points["signers"]["grade"]) == ("ok", "ok")
        assert str(signers) in points["source"]["text"]
        signers.chmod(0o666)
        assert look()["signers"]["grade"] == "bad"
