"""The file of `run --signed-by`: who may sign is what somebody sees who looks at it."""

import pytest

from appliance.api.config_section import find_refusal
from appliance.config.git import read_signer
from appliance.errors import ConfigUnreadable
from appliance.reconcile.reload_result import ReloadResult, find_problems_of
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


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text("# nobody yet\n"), "it holds no public key"),
    ],
)
def test_a_file_of_signers_that_cannot_be_used_is_named_with_the_reason_alone(
    tmp_path, make, reason
):
    make(tmp_path / "signers")
    (tmp_path / "fleet.yaml").write_text(CONFIG)
    source = FileConfigSource(
        [str(tmp_path / "fleet.yaml")],
        nodes=("a",),
        all_nodes=False,
        hostname="a",
        signed_by=str(tmp_path / "signers"),
    )
    with pytest.raises(ConfigUnreadable) as caught:
        source.load()
    assert caught.value.reason == reason
    verdict = ReloadResult(
        result="refused", at=0.0, trigger="poll", problems=find_problems_of(caught.value)
    )
    assert find_refusal(verdict) == [
        f"the last config was refused (1 problem): E001 signers {reason}"
    ]


BARE = KEY.rpartition(" ")[0]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (KEY, KEY),
        ("", ""),
        (f"  # {KEY}", ""),
        (f"\t{KEY}  ", KEY),
        (f"anna@example.org {BARE}", f"{BARE} anna@example.org"),
        (f"anna@example.org,bert {KEY}", KEY),
        (f'anna@example.org namespaces="file,git" {BARE}', f"{BARE} anna@example.org"),
    ],
)
def test_a_line_is_a_key_or_one_of_gits_allowed_signers(line, key):
    assert read_signer(line) == key


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("anna@example.org", "line 2: expected `ssh-ed25519 AAAA"),
        ("anna ssh-rsa AAAAB3NzaC1yc2E anna", "line 2: expected `ssh-ed25519 AAAA"),
        (f"anna cert-authority {BARE}", "line 2: of options only namespaces"),
        (f'anna namespaces="file" {BARE}', "line 2: of options only namespaces"),
        (f'anna namespaces="*,!git" {BARE}', "line 2: of options only namespaces"),
        (f'anna valid-before="20200101" {BARE}', "line 2: of options only namespaces"),
        (f'anna namespaces="git",valid-before="20200101" {BARE}', "line 2: of options only"),
        (f"anna bert carl {BARE}", "line 2: expected"),
        ("ssh-ed25519 !!!!", "line 2: the key is damaged"),
    ],
)
def test_a_line_that_bounds_its_key_otherwise_is_refused_by_its_number(tmp_path, line, said):
    signers, config = tmp_path / "signers", tmp_path / "fleet.yaml"
    signers.write_text(f"# who may sign\n{line}\n")
    config.write_text(CONFIG)
    source = FileConfigSource(
        [str(config)], nodes=("a",), all_nodes=False, hostname="a", signed_by=str(signers)
    )
    with pytest.raises(ConfigUnreadable) as caught:
        source.load()
    assert caught.value.reason.startswith(said)
