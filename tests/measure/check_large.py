"""`check` of a fleet of 1,000 nodes and 10,000 subscriptions, with roles and flat: `python -m tests.measure.check_large`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = (
    "REQPing", "REQPong", "REQHello", "REQToConsole", "REQToFile", "REQToFileAppend", "REQErrorLog",
    "REQOpProcessList", "REQCliCommand",
)  # fmt: skip
NODES = 1_112
"""Nine methods each: 10,008 subscriptions."""


def with_roles() -> str:
    entries = "".join(f"      {method}: {{}}\n" for method in METHODS)
    nodes = "".join(f"  n{number}: {{roles: [all]}}\n" for number in range(NODES))
    return f"version: 1\nbroker: {{embedded: true}}\nroles:\n  all:\n    subscribe:\n{entries}nodes:\n{nodes}"


def flat() -> str:
    entries = "".join(f"      {method}: {{concurrency: 4}}\n" for method in METHODS)
    nodes = "".join(f"  n{number}:\n    subscribe:\n{entries}" for number in range(NODES))
    return f"version: 1\nbroker: {{embedded: true}}\nnodes:\n{nodes}"


def main() -> None:
    for name, text in (("with roles", with_roles()), ("flat", flat())):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "fleet.yaml"
            path.write_text(text)
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "appliance", "check", str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            seconds = time.perf_counter() - started
            print(f"{name}: {seconds:.2f} s, {len(text) / 1e6:.2f} MB: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
