"""Programs that go on until somebody ends them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """As `with process`, which waits for its end, but ended when the block is left, also where a test fails."""
    with process:
        try:
            yield process
        finally:
            process.kill()
