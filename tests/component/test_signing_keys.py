"""The key that a daemon signs with: where it is read from, and what is said when it will not do."""

from pathlib import Path

import pytest

from appliance.bus.inspection import find_signing_trouble
from appliance.bus.node_keys import make_seed, public_key_of, read_seed, write_credentials
from appliance.core.current import Current
from appliance.delivery.signer import Signer, SigningKeys, make_signing_key
from tests.support.config_files import load_text

OWN, OTHER = make_seed(), make_seed()


def desired_of(tmp_path: Path, *, key: str = "", auth: str = "", policy: str = "prefer"):
    return load_text(
        tmp_path,
        f"""
version: 1
broker: {{servers: ["nats://127.0.0.1:4222"]{auth and f", auth: {{{auth}}}"}}}
{key and f"signing: {{key: {{file: {key}}}}}"}
defaults: {{signatures: {policy}}}
nodes: {{ship1: {{public_keys: [{public_key_of(OWN)}], subscribe: {{REQPing: {{}}}}}}}}
""",
    ).desired


def written(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


async def loaded(desired) -> tuple[SigningKeys, Signer]:
    signer = Signer()
    keys = SigningKeys(Current(desired), signer)
    await keys.load()
    return keys, signer


@pytest.mark.parametrize("kind", ["signing", "nkey_seed", "credentials"])
async def test_the_key_of_the_login_signs_unless_another_one_is_named(tmp_path, kind):
    seed = written(tmp_path, "seed", f"{OWN}\n")
    other = written(tmp_path, "other", OTHER)
    credentials = written(tmp_path, "creds", write_credentials(OWN, "a.b.c"))
    options = {
        "signing": {"key": seed, "auth": f"nkey_seed: {{file: {other}}}"},
        "nkey_seed": {"auth": f"nkey_seed: {{file: {seed}}}"},
        "credentials": {"auth": f"credentials: {{file: {credentials}}}"},
    }
    desired = desired_of(tmp_path, **options[kind])
    keys, signer = await loaded(desired)
    assert signer.key == make_signing_key(read_seed(OWN))
    assert keys.troubles() == []
    assert find_signing_trouble(desired) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OTHER, "public_keys"),
        ("nonsense", "no NKEY seed"),
        ("", "is empty"),
        (None, "No such file"),
    ],
    ids=["another one", "none", "empty", "gone"],
)
async def test_a_key_that_will_not_do_is_told_and_the_one_before_goes_on(tmp_path, text, said):
    path = written(tmp_path, "seed", OWN)
    desired = desired_of(tmp_path, key=path)
    keys, signer = await loaded(desired)
    if text is None:
        Path(path).unlink()
    else:
        Path(path).write_text(text)
    await keys.load()
    (trouble,) = keys.troubles()
    assert said in trouble
    assert said in (find_signing_trouble(desired) or "")
    assert text is None or not text or text not in trouble
    assert signer.key == make_signing_key(read_seed(OTHER if text == OTHER else OWN))
    assert "secret" not in repr(signer.key)


async def test_where_nothing_is_signed_no_key_is_missed(tmp_path):
    keys, signer = await loaded(desired_of(tmp_path, policy="off"))
    assert signer.key is None
    assert keys.troubles() == []
