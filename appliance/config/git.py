"""The config's repository: whether its files are what the commit holds, and who signed the commit.

Read with dulwich, so no git is run and nothing in the repository (hooks, filters, file monitors) is executed. What
is compared are the config's own files with the blobs of the commit, not the whole work tree.

Signatures are SSH's (``git config gpg.format ssh``) with ed25519 keys.

Source: gitformat-signature(5), the SSHSIG format in OpenSSH's PROTOCOL.sshsig.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from appliance.config.revision import SignedCommit
from appliance.core.suggest import shorten

if TYPE_CHECKING:
    from dulwich.repo import Repo

_MAGIC = b"SSHSIG"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_KEY_TYPE = b"ssh-ed25519"
_NAMESPACE = b"git"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_MAX_SIGNATURE_BYTES = 8_192
_MAX_AUTHOR_CHARACTERS = 200
_MAX_TREE_ENTRIES = 100_000
_MAX_TREE_DEPTH = 32
_MAX_COMMITS = 10_000
_MAX_LINKS = 40
"""As the kernel."""
_SUFFIXES = (".yaml", ".yml")


class GitTrouble(Exception):
    """The repository cannot be used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFacts:
    """`differing` are config files that are not as the commit has them. `signature` says who signed, or why not."""

    commit: str
    author: str
    differing: tuple[str, ...]
    signer: str | None
    """The comment of the allowed key that signed the commit; None when none did."""
    signature_problem: str | None
    committed_at: float = 0.0
    is_older: bool = False
    """Whether it came before the commit that it was compared with."""

    @property
    def signed(self) -> SignedCommit | None:
        """The commit itself, if an allowed key signed it."""
        return None if self.signer is None else SignedCommit(self.commit, self.committed_at)


def read_commit(
    paths: Sequence[str],
    files: Mapping[str, str],
    allowed: Sequence[str],
    in_force: SignedCommit | None = None,
) -> CommitFacts:
    """Compare the config with the commit that its work tree stands at.

    Args:
        paths: the config's paths, as the daemon was started with.
        files: texts by name, as they were loaded.
        allowed: public keys, ``ssh-ed25519 AAAA… comment``.
        in_force: a commit that this one should not come before.

    Raises:
        GitTrouble: a path is in no work tree, the paths are in several, or the repository is damaged.
    """
    try:
        repo = _open(paths)
        with repo:
            head = repo.head()
            commit: Any = repo[head]
            differing = tuple(_differing(repo, commit, paths, files))
            signer, problem = _find_signer(commit, allowed)
            return CommitFacts(
                commit=head.decode("ascii", "replace"),
                author=commit.author.decode("utf-8", "replace")[:_MAX_AUTHOR_CHARACTERS],
                differing=differing,
                signer=signer,
                signature_problem=problem,
                committed_at=float(commit.commit_time),
                is_older=in_force is not None and _is_before(repo, commit, in_force),
            )
    except GitTrouble:
        raise
    except Exception as error:
        raise GitTrouble(
            f"the repository cannot be read: {type(error).__name__}: {error}"
        ) from error


def _is_before(repo: Repo, commit: Any, in_force: SignedCommit) -> bool:
    """Whether a commit is older than the one in force: it leads to that one, or else was made before it.

    By its time goes what does not follow from the other in this repository: a commit of another branch, one that was
    made anew (an amended one, a rebased branch), and everything where a shallow clone has no history.
    """
    other = in_force.commit.encode()
    if other == commit.id or _leads_to(repo, other, commit.id):
        return False
    if _leads_to(repo, commit.id, other):
        return True
    return in_force.committed_at is not None and commit.commit_time < in_force.committed_at


def _leads_to(repo: Repo, old: bytes, new: bytes) -> bool:
    """Whether `new` comes after `old`, as far as the history is here; looked for among the nearest commits only."""
    waiting, seen = deque([new]), {new}
    while waiting and len(seen) <= _MAX_COMMITS:
        try:
            commit: Any = repo[waiting.popleft()]
        except KeyError:
            continue  # a shallow clone ends somewhere
        for parent in commit.parents:
            if parent == old:
                return True
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return False


def _open(paths: Sequence[str]) -> Repo:
    from dulwich.errors import NotGitRepository
    from dulwich.repo import Repo

    roots = set()
    for path in paths:
        # the tree that the link leads to counts, as git-sync swaps links
        real = os.path.realpath(path)
        start = real if os.path.isdir(real) else os.path.dirname(real)
        try:
            with Repo.discover(start) as found:
                roots.add(os.path.realpath(found.path))
        except NotGitRepository:
            raise GitTrouble(f"{path} is in no git work tree") from None
    if len(roots) > 1:
        raise GitTrouble(f"the paths are in several repositories: {', '.join(sorted(roots))}")
    return Repo(roots.pop())


def _differing(
    repo: Repo, commit: Any, paths: Sequence[str], files: Mapping[str, str]
) -> Iterator[str]:
    """Config files that the commit does not hold as they are here, and those that it holds and that are gone."""
    root = os.path.realpath(repo.path)
    committed: set[str] = set()
    places: dict[str, str] = {}
    for path in paths:
        within = os.path.relpath(os.path.realpath(path), root)
        below = "" if within == "." else within
        committed |= _list_tree(repo, commit.tree, below)
        for name in files:
            inner = os.path.relpath(name, path)
            if not inner.startswith(".."):
                places[name] = os.path.normpath(os.path.join(below, inner))
    for name, text in files.items():
        found = _find_blob(repo, commit.tree, places.get(name, ""))
        if found is None or found != _blob_id(text.encode(), like=commit.id):
            yield name
    # a file that is gone differs, too: who deletes it changes the config
    for relative in sorted(committed - set(places.values())):
        yield os.path.join(root, relative)


def _blob_id(content: bytes, *, like: bytes) -> bytes:
    """As git names such a content, in the kind of names that the repository uses."""
    make = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return make(b"blob %d\0" % len(content) + content).hexdigest().encode()


def _find_blob(repo: Repo, tree_id: bytes, path: str) -> bytes | None:
    """The id of the file that the commit has at a path, through links to other files of the same commit."""
    parts = [part for part in path.split("/") if part]
    done: list[str] = []
    node_id, mode = tree_id, stat.S_IFDIR
    links = 0
    while parts:
        part = parts.pop(0)
        if part == ".." and done:
            done.pop()
            parts[:0], done = done, []
            node_id, mode = tree_id, stat.S_IFDIR
            continue
        if not stat.S_ISDIR(mode) or part == "..":
            return None
        tree: Any = repo[node_id]
        try:
            mode, node_id = tree[os.fsencode(part)]
        except KeyError:
            return None
        if stat.S_ISLNK(mode):
            target = os.fsdecode(repo[node_id].as_raw_string())
            links += 1
            # what lies outside of the commit is not what was signed
            if links > _MAX_LINKS or os.path.isabs(target):
                return None
            parts[:0] = [*done, *(one for one in target.split("/") if one not in ("", "."))]
            done = []
            node_id, mode = tree_id, stat.S_IFDIR
        else:
            done.append(part)
    return node_id if stat.S_ISREG(mode) else None


def _list_tree(repo: Repo, tree_id: bytes, below: str) -> set[str]:
    """The config files of a commit at or below a path, links to files included."""
    node_id, mode = tree_id, stat.S_IFDIR
    for part in filter(None, below.split("/")):
        if not stat.S_ISDIR(mode):
            return set()
        tree: Any = repo[node_id]
        try:
            mode, node_id = tree[os.fsencode(part)]
        except KeyError:
            return set()
    if not stat.S_ISDIR(mode):
        return {below}
    return set(_walk(repo, node_id, below))


def _walk(repo: Repo, tree_id: bytes, below: str) -> Iterator[str]:
    """NB: a few small trees that hold each other again and again are a tree without end."""
    waiting = [(tree_id, below, 0)]
    entries = 0
    while waiting:
        tree_id, below, depth = waiting.pop()
        tree: Any = repo[tree_id]
        for entry in tree.iteritems():
            entries += 1
            if depth > _MAX_TREE_DEPTH or entries > _MAX_TREE_ENTRIES:
                raise GitTrouble("the commit's tree is too large for a config")
            name = os.fsdecode(entry.path)
            if name.startswith((".", "#")):
                continue
            path = os.path.join(below, name)
            if stat.S_ISDIR(entry.mode):
                waiting.append((entry.sha, path, depth + 1))
            elif name.endswith(_SUFFIXES) and (
                stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode)
            ):
                yield path


# -- signatures --------------------------------------------------------------------------------------


def parse_key(line: str) -> tuple[bytes, str]:
    """A public key line as its key blob and its comment.

    Raises:
        ValueError: not an ed25519 key; the text says what is expected.
    """
    parts = line.split(None, 2)
    if len(parts) < 2 or parts[0] != _KEY_TYPE.decode():
        raise ValueError("expected `ssh-ed25519 AAAA… comment`")
    try:
        blob = base64.b64decode(parts[1], validate=True)
        kind, rest = _take(blob)
        raw, rest = _take(rest)
    except (binascii.Error, ValueError):
        raise ValueError("the key is damaged") from None
    if kind != _KEY_TYPE or len(raw) != 32 or rest:
        raise ValueError("the key is damaged")
    return blob, parts[2].strip() if len(parts) > 2 else ""


_NAMESPACES = re.compile(r'namespaces="([^"!*?]*)"', re.IGNORECASE)


def read_signer(line: str) -> str:
    """A line of a file of signers as the key line that `parse_key` takes, or "" where it holds none.

    It may be one of those that git's ``gpg.ssh.allowedSignersFile`` has: who, and how the key may be used, stand before it.

    Raises:
        ValueError: it is none; the text says what is expected.
    """
    words = line.strip().split()
    if not words or words[0].startswith("#"):
        return ""
    kind = _KEY_TYPE.decode()
    before = words[: words.index(kind)] if kind in words else words
    if len(before) > 2 or before == words:
        raise ValueError("expected `ssh-ed25519 AAAA… comment`, or a line of git's allowed signers")
    for option in before[1:]:
        # what bounds a key must not be passed over
        found = _NAMESPACES.fullmatch(option)
        if found is None or "git" not in found[1].split(","):
            raise ValueError(
                f'of options only namespaces="git" is known here, not {shorten(option)}'
            )
    key = " ".join(words[len(before) :])
    _, comment = parse_key(key)
    return key if comment or not before else f"{key} {before[0]}"


def _find_signer(commit: Any, allowed: Sequence[str]) -> tuple[str | None, str | None]:
    if not commit.gpgsig:
        return None, "the commit is not signed"
    keys = dict(parse_key(line) for line in allowed)
    try:
        blob = _verify(commit.gpgsig, commit.raw_without_sig())
    except ValueError as error:
        return None, str(error)
    if blob not in keys:
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        return None, f"the commit is signed by a key that is not allowed: SHA256:{digest}"
    return keys[blob] or "an allowed key", None


def _verify(armored: bytes, payload: bytes) -> bytes:
    """The key that made a signature over `payload`.

    Raises:
        ValueError: the signature is of another kind, damaged, or not over this payload.
    """
    lines = armored.decode("ascii", "replace").strip().splitlines()
    if len(armored) > _MAX_SIGNATURE_BYTES or not lines or lines[0] != _BEGIN or lines[-1] != _END:
        raise ValueError("the commit's signature is no SSH signature")
    try:
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
        if raw[:6] != _MAGIC or struct.unpack(">I", raw[6:10])[0] != 1:
            raise ValueError("unknown version")
        key, rest = _take(raw[10:])
        namespace, rest = _take(rest)
        reserved, rest = _take(rest)
        hash_name, rest = _take(rest)
        wrapped, rest = _take(rest)
        kind, key_rest = _take(key)
        raw_key, key_rest = _take(key_rest)
        signed_kind, signature_rest = _take(wrapped)
        signature, signature_rest = _take(signature_rest)
    except (binascii.Error, ValueError, struct.error):
        raise ValueError("the commit's signature is damaged") from None
    if kind != _KEY_TYPE or signed_kind != _KEY_TYPE:
        raise ValueError("the commit is signed with a key that is no ed25519 key")
    # a signature over something else (a file, a login) must not pass for one over a commit
    if namespace != _NAMESPACE or hash_name not in _HASHES or rest or key_rest or signature_rest:
        raise ValueError("the commit's signature is damaged, or was made for something else")
    digest = _HASHES[hash_name](payload).digest()
    signed = _MAGIC + b"".join(map(_give, (namespace, reserved, hash_name, digest)))
    try:
        VerifyKey(raw_key).verify(signed, signature)
    except (BadSignatureError, ValueError):
        raise ValueError("the commit's signature does not fit the commit") from None
    return key


def _take(raw: bytes) -> tuple[bytes, bytes]:
    if len(raw) < 4:
        raise ValueError("cut short")
    size = struct.unpack(">I", raw[:4])[0]
    if size > len(raw) - 4:
        raise ValueError("cut short")
    return raw[4 : 4 + size], raw[4 + size :]


def _give(part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + part
