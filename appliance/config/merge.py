"""Several files to one tree: maps merge by key, the same leaf in two places is an error that names
both.

`version` is the exception: it tells the format of the file it stands in, so every file may repeat
it. Null says nothing and gives way to what another file says.
"""

from __future__ import annotations

from typing import Any

from appliance.config.placing import make_problem, show_path
from appliance.config.positions import KeyPath, Place, Spot
from appliance.core.problems import Problem


def merge_documents(
    documents: list[tuple[dict[str, Any], Spot]],
) -> tuple[dict[str, Any], Spot, list[Problem]]:
    """Merge in the order given. The inputs are used up: the first becomes the whole."""
    if not documents:
        return {}, Spot(Place("", 0, 0, 0)), []
    problems: list[Problem] = []
    tree, spot = documents[0]
    for other, other_spot in documents[1:]:
        _merge(tree, spot, other, other_spot, (), problems)
    return tree, spot, problems


def _merge(
    tree: dict[str, Any],
    spot: Spot,
    other: dict[str, Any],
    other_spot: Spot,
    path: KeyPath,
    problems: list[Problem],
) -> None:
    for key, place in other_spot.keys.items():
        child = other_spot.children[key]
        if key not in other:  # refused while reading; only its place is kept
            spot.keys.setdefault(key, place)
            spot.children.setdefault(key, child)
            continue
        value = other[key]
        if key not in tree or tree[key] is None:
            tree[key] = value
            spot.keys[key] = place
            spot.children[key] = child
            continue
        here = tree[key]
        if value is None:
            continue
        if isinstance(here, dict) and isinstance(value, dict):
            _merge(here, spot.children[key], value, child, (*path, key), problems)
        elif not (path == () and key == "version" and here == value):
            problems.append(
                make_problem(
                    "E011",
                    place,
                    f"`{show_path((*path, key))}` is already set at {spot.keys[key]}",
                    hint="drop one of the two; maps merge over files, everything else stands once",
                    path=(*path, key),
                )
            )
