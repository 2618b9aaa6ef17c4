"""The git revision of a path, read without git: layouts made by hand, and by the real git where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config.revision import Revision, read_revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git program")


def git(directory: Path, *arguments: str) -> str:
    """Run git untouched by the user's settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e@example.org",
        "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e@example.org",
        "GIT_CEILING_DIRECTORIES": str(directory.parent),
    }  # fmt: skip
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, check=True, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "conf.d").mkdir()
    (root / "conf.d" / "a.yaml").write_text("a: 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    return root


def make_layout(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@needs_git
def test_a_clone_is_read_from_any_path_in_it(clone: Path) -> None:
    expected = Revision(commit=git(clone, "rev-parse", "HEAD"), branch="main")
    for path in (clone, clone / "conf.d", clone / "conf.d" / "a.yaml", str(clone)):
        assert read_revision(path) == expected
    assert read_revision(clone / "not" / "there.yaml") == expected


@needs_git
def test_every_way_a_head_can_stand_agrees_with_git(clone: Path) -> None:
    def check(branch: str | None) -> None:
        assert read_revision(clone) == Revision(
            commit=git(clone, "rev-parse", "HEAD"), branch=branch
        )

    check("main")
    git(clone, "checkout", "-q", "-b", "feature/deep/name")
    git(clone, "commit", "-q", "--allow-empty", "-m", "two")
    check("feature/deep/name")
    git(clone, "pack-refs", "--all")
    check("feature/deep/name")
    git(clone, "commit", "-q", "--allow-empty", "-m", "three")
    check("feature/deep/name")
    git(clone, "tag", "-a", "v1", "-m", "tag")
    git(clone, "checkout", "-q", "--detach", "v1")
    check(None)
    git(clone, "pack-refs", "--all")
    git(clone, "checkout", "-q", "main")
    check("main")


@needs_git
def test_a_linked_work_tree_stands_on_its_own(clone: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(clone, "worktree", "add", "-q", "-b", "other", str(tree))
    git(tree, "commit", "-q", "--allow-empty", "-m", "two")
    for _ in range(2):
        assert read_revision(tree) == Revision(
            commit=git(tree, "rev-parse", "HEAD"), branch="other"
        )
        assert read_revision(clone) == Revision(
            commit=git(clone, "rev-parse", "HEAD"), branch="main"
        )
        git(clone, "pack-refs", "--all")


@needs_git
def test_the_layout_of_git_sync_is_followed_and_changes_with_the_link(
    clone: Path, tmp_path: Path
) -> None:
    (tmp_path / "git").mkdir()
    link = tmp_path / "git" / "current"
    for number in range(2):
        git(clone, "commit", "-q", "--allow-empty", "-m", str(number))
        commit = git(clone, "rev-parse", "HEAD")
        git(clone, "worktree", "add", "-q", "--detach", str(tmp_path / "git" / commit))
        fresh = tmp_path / "git" / "new"
        fresh.symlink_to(commit)
        fresh.rename(link)
        assert read_revision(link / "conf.d" / "a.yaml") == Revision(commit=commit)


@needs_git
def test_a_submodule_is_a_repository_of_its_own(clone: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "main")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(clone), "sub")
    assert read_revision(outer / "sub") == Revision(
        commit=git(clone, "rev-parse", "HEAD"), branch="main"
    )
    assert read_revision(outer) is None, "nothing is committed there yet"


@needs_git
def test_a_repository_with_sha256_is_read(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    revision = read_revision(tmp_path)
    assert revision is not None
    assert revision.commit == git(tmp_path, "rev-parse", "HEAD")
    assert len(revision.commit) == 64


def test_loose_references_win_over_packed_ones(tmp_path: Path) -> None:
    make_layout(
        tmp_path,
        {
            ".git/HEAD": "ref: refs/heads/main\n",
            ".git/packed-refs": f"# pack-refs with: peeled\n{OTHER} refs/heads/main\n^{COMMIT}\n",
        },
    )
    assert read_revision(tmp_path) == Revision(commit=OTHER, branch="main")
    make_layout(tmp_path, {".git/refs/heads/main": COMMIT + "\n"})
    assert read_revision(tmp_path) == Revision(commit=COMMIT, branch="main")


def test_a_packed_reference_is_matched_as_a_whole(tmp_path: Path) -> None:
    make_layout(
        tmp_path,
        {
            ".git/HEAD": "ref: refs/heads/main\n",
            ".git/packed-refs": f"{OTHER} refs/remotes/x/refs/heads/main\n"
            f"{COMMIT} refs/heads/main\n",
        },
    )
    assert read_revision(tmp_path) == Revision(commit=COMMIT, branch="main")


def test_a_head_that_is_a_symbolic_link_is_read(tmp_path: Path) -> None:
    make_layout(tmp_path, {".git/refs/heads/main": COMMIT})
    (tmp_path / ".git" / "HEAD").symlink_to("refs/heads/main")
    assert read_revision(tmp_path) == Revision(commit=COMMIT, branch="main")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".git/HEAD": ""},
        {".git/HEAD": "nonsense"},
        {".git/HEAD": "ref: refs/heads/unborn\n"},
        {".git/HEAD": "ref: refs/heads/.invalid\n"},
        {".git/HEAD": "ref: ../../../etc/passwd\n"},
        {".git/HEAD": "ref: refs/../../secret\n", "secret": COMMIT},
        {".git/HEAD": "ref: refs/heads/a\n", ".git/refs/heads/a": "ref: refs/heads/a\n"},
        {".git/HEAD": "ref: refs/heads/a\n", ".git/refs/heads/a": "short\n"},
        {".git/HEAD": "x" * 10_000},
        {".git/HEAD": "ref: refs/heads/a\0b"},
        {".git": "gitdir: /nonexistent\n"},
        {".git": "gitdir:\n"},
        {".git": "nonsense"},
        {".git": "gitdir: \0\n"},
    ],
)
def test_what_is_no_revision_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_revision(make_layout(tmp_path, files)) is None


def test_named_pipes_and_unreadable_files_are_none_and_do_not_block(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    assert read_revision(tmp_path) is None
    (tmp_path / ".git" / "HEAD").unlink()
    (tmp_path / ".git" / "HEAD").mkdir()
    assert read_revision(tmp_path) is None
    assert read_revision("\0") is None
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert read_revision(loop / "x") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(head=st.binary(max_size=80), packed=st.binary(max_size=120))
def test_any_content_gives_a_value(tmp_path: Path, head: bytes, packed: bytes) -> None:
    git_dir = tmp_path / ".git"
    git_dir.mkdir(exist_ok=True)
    (git_dir / "HEAD").write_bytes(head)
    (git_dir / "packed-refs").write_bytes(packed)
    read_revision(tmp_path)
    (git_dir / "HEAD").write_bytes(b"ref: refs/heads/" + head)
    read_revision(tmp_path)
