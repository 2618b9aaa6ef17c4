"""The long reload run: 3,000 messages/s for 20 s. `python -m tests.measure.swap_under_load`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.swap_load import run_swaps


def main() -> None:
    for name, edits in (("swap and live", {"swaps": 50, "lives": 50}), ("flap", {"flaps": 100})):
        with tempfile.TemporaryDirectory() as directory:
            print(name, run_swaps(Path(directory), rate=3_000, seconds=20, **edits), flush=True)


if __name__ == "__main__":
    main()
