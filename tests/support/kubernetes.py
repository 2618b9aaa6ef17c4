"""What a kubelet does with the manifests of configs/kubernetes: read them, and mount a ConfigMap as a directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[2] / "configs" / "kubernetes"


def read_manifests(name: str) -> list[dict[str, Any]]:
    """The objects of one file."""
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Those of one kind, by name."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def mount(directory: Path, data: dict[str, str]) -> None:
    """Bring new content as a kubelet does: a directory of its own, and one link that is moved to it."""
    directory.mkdir(exist_ok=True)
    generation = directory / f"..{len(list(directory.glob('..2*'))) + 2026}"
    generation.mkdir()
    for name, text in data.items():
        (generation / name).write_text(text)
    link = directory / "..data_tmp"
    link.symlink_to(generation.name)
    os.replace(link, directory / "..data")
    for name in data:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
