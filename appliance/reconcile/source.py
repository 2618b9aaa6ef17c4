"""The config source of a daemon: the paths it was started with, read and compiled for the nodes it runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from appliance.config.characters import split_reviewed
from appliance.config.files import fingerprint
from appliance.config.git import CommitFacts, GitTrouble, read_commit, read_signer
from appliance.config.loader import load_desired, load_given, load_kept
from appliance.config.merge import read_config
from appliance.config.revision import Revision, SignedCommit, read_revision
from appliance.core.names import NodeName
from appliance.core.problems import Problem
from appliance.core.run_options import choose_run_nodes
from appliance.core.specs import DesiredState
from appliance.errors import ConfigInvalid, ConfigUnreadable
from appliance.methods.registry import METHOD_TABLE
from appliance.reconcile.reload_result import LoadedSet, unjudged_note


class FileConfigSource:
    """Blocking; the reconciler calls it in a thread. Nodes are chosen again with every load."""

    def __init__(
        self,
        paths: Sequence[str],
        *,
        nodes: Sequence[str],
        all_nodes: bool,
        hostname: str,
        signed_by: str | None = None,
    ) -> None:
        # NB: absolute from the start; the working directory may be deleted and made again later
        self.paths = tuple(os.path.abspath(path) for path in paths)
        self._nodes = tuple(nodes)
        self._all_nodes = all_nodes
        self._hostname = hostname
        self.signed_by = os.path.abspath(signed_by) if signed_by is not None else None
        """The file that says who may sign, whatever the config says of it."""
        self._trusted: tuple[str, ...] | None = None
        self._find_newest: Callable[[], SignedCommit | None] = lambda: None

    def fingerprint(self) -> str:
        """Digest of the files as they are now; "" when they cannot be read."""
        try:
            return fingerprint(self.paths)
        except ConfigUnreadable:
            return ""

    def revision(self) -> Revision | None:
        """The commit that the first path stands at."""
        return read_revision(self.paths[0])

    def signers(self) -> str:
        """Digest of the file of `--signed-by`; "" without one, or while it cannot be read."""
        if self.signed_by is None:
            return ""
        try:
            with open(self.signed_by, "rb") as file:
                return hashlib.sha256(file.read(MAX_KEY_FILE_BYTES)).hexdigest()
        except OSError:
            return ""

    def texts(self) -> dict[str, str]:
        """The files as they are now, as they may be shown: without secrets that somebody wrote into them."""
        try:
            return read_config(self.paths, os.environ).shown_files()
        except ConfigUnreadable:
            return {}

    def load(self) -> LoadedSet:
        """Read, check and compile the own paths."""
        return self.load_from(self.paths)

    def load_from(self, paths: Sequence[str]) -> LoadedSet:
        """Read, check and compile other paths for the same choice of nodes."""
        loaded = load_desired(
            paths,
            environ=os.environ,
            methods=METHOD_TABLE,
            run_nodes=self._choose,
        )
        revision = read_revision(paths[0])
        allowed = self._allowed_keys(loaded.desired)
        dirty: bool | None = None
        author: str | None = None
        facts: CommitFacts | None = None
        newest: SignedCommit | None = None
        if allowed or loaded.desired.source.source == "git":
            # whoever asks for git or for signatures has the set refused where that fails
            newest = self._find_newest() if allowed else None
            facts = _check_commit(paths, loaded.files, allowed, newest)
        elif revision is not None:
            # only to be shown: a repository that cannot be read refuses nothing
            facts = _look_at_commit(paths, loaded.files)
        if facts is not None:
            if revision is not None and revision.commit != facts.commit:
                # somebody has committed meanwhile: what was compared is what the set is called after
                revision = replace(read_revision(paths[0]) or revision, commit=facts.commit)
            dirty = bool(facts.differing)
            author = f"{facts.author}, signed by {facts.signer}" if facts.signer else facts.author
        return LoadedSet(
            desired=loaded.desired,
            digest=loaded.digest,
            revision=revision.commit if revision else None,
            branch=revision.branch if revision else None,
            dirty=dirty,
            author=author,
            signed=facts.signed if facts is not None and allowed else None,
            older_than=newest.commit if newest and facts and facts.is_older else None,
            files=loaded.files,
            blank=loaded.blank,
            warnings=loaded.warnings,
            place=loaded.place,
        )

    def trust(self, desired: DesiredState) -> None:
        """The keys of the set in force decide about the next one."""
        self._trusted = desired.source.signed_by

    def compare_with(self, find_newest: Callable[[], SignedCommit | None]) -> None:
        """A signed commit is compared with the one that this finds."""
        self._find_newest = find_newest

    def _allowed_keys(self, desired: DesiredState) -> tuple[str, ...]:
        """Who may sign: the file that the daemon was started with, the set in force, at the start the set itself."""
        if self.signed_by is not None:
            return _read_keys(self.signed_by)
        return desired.source.signed_by if self._trusted is None else self._trusted

    def load_given(
        self, files: Mapping[str, bytes], digest: str, variables: Collection[str] | None
    ) -> LoadedSet:
        """Compile texts that a caller sent. They are of no commit that could be judged."""
        environ = {
            name: value
            for name, value in os.environ.items()
            if variables is None or name in variables
        }
        loaded = load_given(
            files, digest, environ=environ, methods=METHOD_TABLE, run_nodes=self._choose
        )
        return LoadedSet(
            desired=loaded.desired,
            digest=digest,
            revision=None,
            branch=None,
            dirty=None,
            author=None,
            files=loaded.files,
            blank=loaded.blank,
            warnings=[*loaded.warnings, *self._find_unjudged(loaded.desired)],
            place=loaded.place,
        )

    def _find_unjudged(self, desired: DesiredState) -> tuple[Problem, ...]:
        """That a reload would ask for more than texts can show."""
        trusted = desired.source.signed_by if self._trusted is None else self._trusted
        return (unjudged_note(),) if self.signed_by is not None or trusted else ()

    def load_kept(
        self, files: Mapping[str, str], digest: str, revision: Revision | None
    ) -> LoadedSet:
        """Compile a set that the history kept."""
        loaded = load_kept(
            files, digest, environ=os.environ, methods=METHOD_TABLE, run_nodes=self._choose
        )
        return LoadedSet(
            desired=loaded.desired,
            digest=digest,
            revision=revision.commit if revision else None,
            branch=revision.branch if revision else None,
            dirty=revision.dirty if revision else None,
            author=revision.author if revision else None,
            files=files,
            blank=loaded.blank,
            warnings=loaded.warnings,
            place=loaded.place,
        )

    def _choose(self, declared: Sequence[NodeName]) -> Sequence[NodeName]:
        return choose_run_nodes(
            declared, self._nodes or None, all_nodes=self._all_nodes, hostname=self._hostname
        )


MAX_SHOWN_FILES = 5
MAX_KEY_FILE_BYTES = 65_536


def _check_commit(
    paths: Sequence[str],
    files: Mapping[str, str],
    allowed: Sequence[str],
    in_force: SignedCommit | None,
) -> CommitFacts:
    """The commit of a set from git; with keys it must be signed by one, and the files must be the commit's.

    Raises:
        ConfigInvalid: it is none, or not what the keys ask for.
    """
    try:
        facts = read_commit(paths, files, allowed, in_force)
    except GitTrouble as error:
        raise ConfigInvalid(
            [Problem(code="E311", path="config.source", message=str(error))]
        ) from error
    if not allowed:
        return facts
    problems = []
    if facts.signature_problem is not None:
        problems.append(
            Problem(
                code="E312",
                path="config.signed_by",
                message=f"commit {facts.commit[:12]}: {facts.signature_problem}",
                hint="sign it: git commit -S, with gpg.format ssh and a key that is allowed",
            )
        )
    if facts.differing:
        names = ", ".join(facts.differing[:MAX_SHOWN_FILES])
        more = " …" if len(facts.differing) > MAX_SHOWN_FILES else ""
        problems.append(
            Problem(
                code="E313",
                path="config.signed_by",
                message=f"not as commit {facts.commit[:12]} has them: {names}{more}",
                hint="commit the change, signed, or undo it",
            )
        )
    if problems:
        raise ConfigInvalid(problems)
    return facts


def _look_at_commit(paths: Sequence[str], files: Mapping[str, str]) -> CommitFacts | None:
    """What the commit says of files that need not be from one; None where that cannot be told."""
    try:
        return read_commit(paths, files, ())
    except GitTrouble:
        return None


def _read_keys(path: str) -> tuple[str, ...]:
    """Public keys of a file, a line each.

    Raises:
        ConfigUnreadable: it cannot be read, holds no key or a damaged one.
    """
    try:
        # NB: no line ends but newlines, so that no key is hidden in what looks like a comment
        with open(path, encoding="utf-8", newline="") as file:
            lines = split_reviewed(file.read(MAX_KEY_FILE_BYTES))
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else error
        raise ConfigUnreadable(path, str(reason)) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(read_signer(line))
        except ValueError as error:
            raise ConfigUnreadable(path, f"line {number}: {error}") from error
    keys = tuple(key for key in found if key)
    if not keys:
        raise ConfigUnreadable(path, "it holds no public key")
    return keys
