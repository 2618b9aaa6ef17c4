"""A repository of packages: refused where it cannot be made; the making itself is tried with the real tools."""

import os
import shutil
import subprocess

import pytest

from tests.packaging.conftest import PACKAGING

TOOLS = ("gpg", "apt-ftparchive", "createrepo_c", "dpkg-deb")
missing = [tool for tool in TOOLS if shutil.which(tool) is None]


def run(*arguments, **environment):
    return subprocess.run(
        [PACKAGING / "repository", *arguments],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1893456000", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [(), ("--key",), ("--nonsense",), ("--key", "A", "--url", "B")])
def test_wrong_use_is_told(words):
    ended = run(*words)
    assert ended.returncode == 64
    assert ended.stderr.startswith("usage:")


@pytest.fixture
def key(tmp_path):
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    made = [
        "gpg",
        "--batch",
        "--passphrase",
        "",
        "--quick-generate-key",
        "k",
        "ed25519",
        "sign",
        "never",
    ]
    subprocess.run(made, env=environment, check=True, capture_output=True)
    yield home
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)


@pytest.fixture
def package(tmp_path):
    control = tmp_path / "small/DEBIAN/control"
    control.parent.mkdir(parents=True)
    words = "Package: small\nVersion: 1\nArchitecture: amd64\nMaintainer: m <m@m.invalid>\nDescription: s\n"
    control.write_text(words)
    made = [
        "dpkg-deb",
        "--root-owner-group",
        "-b",
        tmp_path / "small",
        tmp_path / "small_1_amd64.deb",
    ]
    subprocess.run(made, check=True, capture_output=True)
    return tmp_path / "small_1_amd64.deb"


@pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")
def test_the_same_packages_and_key_make_the_same_signed_files(tmp_path, key, package):
    (tmp_path / "before").touch()
    for name in ("one", "two"):
        words = (
            "--key",
            "k",
            "--url",
            "https://packages.example",
            "--into",
            tmp_path / name,
            package,
        )
        ended = run(*words, GNUPGHOME=str(key))
        assert ended.returncode == 0, ended.stderr
    one = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*")}
    assert len(one) > 10
    for inner, path in one.items():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / inner).read_bytes(), inner
    signed = tmp_path / "one/deb/dists/stable/InRelease"
    # apt asks by it whether there is something new, also where the release is the same and a package more
    assert signed.stat().st_mtime >= (tmp_path / "before").stat().st_mtime
    check = ["gpgv", "--keyring", tmp_path / "one/appliance.gpg"]
    assert subprocess.run([*check, signed], capture_output=True, check=False).returncode == 0
    signed.write_text(signed.read_text().replace("stable", "unstable", 1))
    assert subprocess.run([*check, signed], capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")
def test_an_unknown_key_leaves_nothing_behind(tmp_path, key, package):
    into = tmp_path / "out"
    ended = run("--key", "0BAD", "--url", "u", "--into", into, package, GNUPGHOME=str(key))
    assert ended.returncode == 66
    assert "no key 0BAD" in ended.stderr
    assert not into.exists()
