"""What is said of secrets and certificates: unreadable, empty, of another kind, mismatched, expired, about to expire."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from appliance.bus.inspection import EXPIRES_SOON_S, Inspected, expires_soon, inspect_secrets
from appliance.core.specs import SecretRef
from tests.support.nats_login import Certificates, make_certificates, make_jwt_setup, make_nkey

DAY_S = 86_400.0


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def file(path: Path | str) -> SecretRef:
    return SecretRef(kind="file", name=str(path))


def inspect(now: float | None = None, **refs: SecretRef) -> dict[str, Inspected]:
    places = {place.replace("__", "."): ref for place, ref in refs.items()}
    return dict(inspect_secrets(places, time.time() if now is None else now))


def test_a_certificate_with_its_key_can_be_used_until_it_ends(certificates: Certificates) -> None:
    found = inspect(
        broker__tls__ca=file(certificates.ca),
        broker__tls__cert=file(certificates.client_cert),
        broker__tls__key=file(certificates.client_key),
    )
    assert [item.trouble for item in found.values()] == [None, None, None]
    cert = found["broker.tls.cert"]
    assert cert.expires_at == pytest.approx(time.time() + 2 * DAY_S, abs=600)
    assert expires_soon(cert, time.time())
    assert not expires_soon(cert, cert.expires_at - EXPIRES_SOON_S - 1)
    assert found["broker.tls.key"].expires_at is None


def test_an_expired_certificate_is_told(certificates: Certificates) -> None:
    later = time.time() + 3 * DAY_S
    found = inspect(later, broker__tls__cert=file(certificates.client_cert))["broker.tls.cert"]
    assert found.trouble is not None
    assert found.trouble.endswith("client.pem has expired")
    assert not expires_soon(found, later)


def test_a_key_of_another_certificate_is_told_at_the_certificate(
    certificates: Certificates,
) -> None:
    found = inspect(
        broker__tls__cert=file(certificates.client_cert),
        broker__tls__key=file(certificates.server_key),
    )
    assert found["broker.tls.cert"].trouble is not None
    words = "the key is not that of the certificate (KEY_VALUES_MISMATCH)"
    assert found["broker.tls.cert"].trouble.endswith(words)


def test_a_bundle_of_authorities_ends_with_its_last(
    certificates: Certificates, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(certificates.ca.read_text() + certificates.other_ca.read_text())
    found = inspect(broker__tls__ca=file(bundle))["broker.tls.ca"]
    assert found.trouble is None
    assert found.expires_at == pytest.approx(time.time() + 2 * DAY_S, abs=600)


@pytest.mark.parametrize(
    ("place", "text", "words"),
    [
        ("broker__tls__cert", "no certificate", "holds no certificate in PEM"),
        ("broker__tls__cert", "-----BEGIN CERTIFICATE-----\nMIIB", "a certificate that is cut off"),
        (
            "broker__tls__ca",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "a certificate that cannot be read",
        ),
        (
            "broker__tls__ca",
            "-----BEGIN CERTIFICATE-----\n" + "MIAw" * 3_000 + "\n-----END CERTIFICATE-----",
            "a certificate that cannot be read",
        ),
        ("broker__auth__credentials", "canary", "holds no user JWT with its NKEY seed"),
        ("broker__auth__nkey_seed", "canary", "is no NKEY seed"),
        ("admin__token", "", "is empty"),
        ("admin__token", " \n", "is empty"),
    ],
    ids=["no PEM", "cut off", "short", "long", "credentials", "seed", "empty", "blank"],
)
def test_what_is_of_another_kind_is_told_without_its_text(
    tmp_path: Path, place: str, text: str, words: str
) -> None:
    path = tmp_path / "it"
    path.write_text(text)
    (found,) = inspect(**{place: file(path)}).values()
    assert found.trouble is not None
    assert words in found.trouble
    assert "canary" not in found.trouble
    assert str(path) in found.trouble


def test_what_cannot_be_read_is_told_with_the_systems_words(tmp_path: Path) -> None:
    (found,) = inspect(admin__token=file(tmp_path / "nowhere")).values()
    assert found.trouble is not None
    assert "No such file or directory" in found.trouble
    assert found.digest == ""


def test_credentials_end_with_their_jwt(tmp_path: Path) -> None:
    path = tmp_path / "creds"
    path.write_text(make_jwt_setup()[1])
    (found,) = inspect(broker__auth__credentials=file(path)).values()
    assert found.trouble is None
    assert found.expires_at is None  # that one has no end
    seed = tmp_path / "seed"
    seed.write_text(make_nkey().seed)
    (found,) = inspect(broker__auth__nkey_seed=file(seed)).values()
    assert found.trouble is None


def test_a_digest_tells_that_a_text_is_another(certificates: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "cert"
    shutil.copy(certificates.client_cert, path)
    before = inspect(broker__tls__cert=file(path))["broker.tls.cert"]
    shutil.copy(certificates.server_cert, path)
    after = inspect(broker__tls__cert=file(path))["broker.tls.cert"]
    assert before.digest != after.digest
