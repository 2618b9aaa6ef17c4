"""What `appliance explain CODE` tells."""

from __future__ import annotations

from typing import NamedTuple


class Story(NamedTuple):
    """One code: its short name, what it means, a mistake that gives it, and how to mend that."""

    code: str
    name: str
    meaning: str
    example: str
    mend: str
