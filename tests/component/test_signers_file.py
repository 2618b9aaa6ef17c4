"""The file of `run --signed-by`: who may sign is what somebody sees who looks at it."""

import pytest

from appliance.errors import ConfigUnreadable
from appliance.reconcile.source import FileConfigSource

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP8kYzy3oKt5n0VhVqVb8Tq5QK0v0mY0R2mVg0Jt2fXo anna"
CONFIG = "version: 1\nbroker: {embedded: true}\nnodes: {a: {subscribe: {REQPing: {}}}}\n"


@pytest.mark.parametrize(
    ("hidden", "named"),
    [
        ("\u2028", "line 1: U.2028, line separator"),
        ("\x85", "U.0085"),
        ("\r", "U.000D"),
        ("\x0b", "U.000B"),
        ("\u202e", "U.202E"),
    ],
)
def test_a_key_that_stands_in_what_looks_like_a_comment_is_refused_by_name(tmp_path, hidden, named):
    signers = tmp_path / "signers"
    signers.write_bytes(f"# the key of before:{hidden}{KEY}\n{KEY}\n".encode())
    config = tmp_path / "fleet.yaml"
    config.write_text(CONFIG)
    source = FileConfigSource(
        [str(config)], nodes=("a",), all_nodes=False, hostname="a", signed_by=str(signers)
    )
    with pytest.raises(ConfigUnreadable, match=named):
        source.load()
