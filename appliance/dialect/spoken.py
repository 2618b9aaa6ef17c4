"""The dialect that this program speaks. Another one is a file beside `steward.py`, and its name here."""

from __future__ import annotations

from appliance.dialect.base import Dialect
from appliance.dialect.steward import StewardDialect


def make_dialect() -> Dialect:
    """The dialect for one connection to a broker."""
    return StewardDialect()
