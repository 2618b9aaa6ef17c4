"""The config source of a daemon: the paths it was started with, read and compiled for the nodes it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.config.files import fingerprint
from appliance.config.loader import load_desired, load_kept
from appliance.config.revision import read_revision
from appliance.core.names import NodeName
from appliance.core.run_nodes import choose_run_nodes
from appliance.errors import ConfigUnreadable
from appliance.methods.registry import METHOD_TABLE
from appliance.reconcile.verdicts import LoadedSet


class FileConfigSource:
    """Blocking; the reconciler calls it in a thread. Nodes are chosen again with every load."""

    def __init__(
        self, paths: Sequence[str], *, nodes: Sequence[str], all_nodes: bool, hostname: str
    ) -> None:
        # NB: absolute from the start; the working directory may be deleted and made again later
        self.paths = tuple(os.path.abspath(path) for path in paths)
        self._nodes = tuple(nodes)
        self._all_nodes = all_nodes
        self._hostname = hostname

    def fingerprint(self) -> str:
        """Digest of the files as they are now; "" when they cannot be read."""
        try:
            return fingerprint(self.paths)
        except ConfigUnreadable:
            return ""

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
        revision = read_revision(Path(paths[0]))
        return LoadedSet(
            desired=loaded.desired,
            digest=loaded.digest,
            revision=revision.commit if revision else None,
            files=loaded.files,
            warnings=loaded.warnings,
            place=loaded.place,
        )

    def load_kept(self, files: Mapping[str, str], digest: str, revision: str | None) -> LoadedSet:
        """Compile a set that the history kept."""
        loaded = load_kept(
            files, digest, environ=os.environ, methods=METHOD_TABLE, run_nodes=self._choose
        )
        return LoadedSet(
            desired=loaded.desired,
            digest=digest,
            revision=revision,
            files=files,
            warnings=loaded.warnings,
            place=loaded.place,
        )

    def _choose(self, declared: Sequence[NodeName]) -> Sequence[NodeName]:
        return choose_run_nodes(
            declared, self._nodes or None, all_nodes=self._all_nodes, hostname=self._hostname
        )
