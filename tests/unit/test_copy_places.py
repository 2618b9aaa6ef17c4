"""What `cp` takes its words for."""

import os

import pytest

from appliance.cli.copy_local import LocalFailed
from appliance.cli.copy_places import Place, PlacesUnclear, plan_copies, read_place


def plan(*texts):
    return [(str(job.source), str(job.target)) for job in plan_copies(texts)]


@pytest.mark.parametrize(
    ("text", "node", "path"),
    [
        ("ship1:/var/log/x", "ship1", "/var/log/x"),
        ("fleet.north.ship-1_a:/x", "fleet.north.ship-1_a", "/x"),
        ("ship1:/x:y", "ship1", "/x:y"),
        ("ship1:/dir/", "ship1", "/dir/"),
        ("x", None, "x"),
        ("./ship1:/x", None, "./ship1:/x"),
        ("/a/b:c", None, "/a/b:c"),
        (":x", None, ":x"),
        ("../x", None, "../x"),
        ("-", None, "-"),
    ],
)
def test_a_colon_before_the_first_slash_makes_it_remote(text, node, path):
    assert read_place(text) == Place(node, path)
    assert str(read_place(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty path"),
        ("ship1:log", "absolute, as in ship1:/log"),
        ("ship1:", "absolute, as in ship1:/path"),
        ("ship1:~/x", "absolute, as in ship1:/~/x"),
        ("no node:/x", r"'no node' is no node name \(a file here: write ./no node:/x\)"),
        ("*:/x", "no node name"),
        ("ship1.:/x", "no node name"),
        ("ship1:/a/../etc/passwd", r"without `\.\.`"),
        ("ship1:/a\0b", r"without `\.\.`"),
        ("ship\n1:/a", "no node name"),
    ],
)
def test_words_that_make_no_sense_are_answered_with_what_to_write(text, said):
    with pytest.raises(PlacesUnclear, match=said):
        read_place(text)


def test_a_file_goes_under_the_name_that_the_target_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan("ship1:/var/x", "y") == [("ship1:/var/x", "y")]
    assert plan("x", "ship1:/var/y") == [("x", "ship1:/var/y")]
    assert plan("ship1:/var/x", "ship2:/y") == [("ship1:/var/x", "ship2:/y")]


def test_into_a_directory_it_goes_under_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("dir")
    assert plan("ship1:/var/x", ".") == [("ship1:/var/x", "./x")]
    assert plan("ship1:/var/x", "./") == [("ship1:/var/x", "./x")]
    assert plan("ship1:/var/x", "dir") == [("ship1:/var/x", "dir/x")]
    assert plan("dir/x", "ship1:/srv/") == [("dir/x", "ship1:/srv/x")]
    assert plan("ship1:/x", "ship2:/srv/") == [("ship1:/x", "ship2:/srv/x")]


def test_several_sources_go_into_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("dir")
    assert plan("ship1:/a", "ship2:/b", "dir") == [("ship1:/a", "dir/a"), ("ship2:/b", "dir/b")]
    assert plan("a", "ship2:/b", "ship1:/srv") == [
        ("a", "ship1:/srv/a"),
        ("ship2:/b", "ship1:/srv/b"),
    ]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("a", "b"), "both are here"),
        (("ship1:/a", "b", "."), "both are here"),
        (("ship1:/a", "ship2:/a", "."), "two sources would become ./a"),
        (("ship1:/a", "ship1:/a", "ship2:/srv/"), "two sources would become ship2:/srv/a"),
        (("ship1:/a/", "."), "ship1:/a/ is a directory"),
        (("ship1:/", "."), "ship1:/ is a directory"),
        ((".", "ship1:/a/"), r"\. is a directory"),
        (("..", "ship1:/a/"), r"\.\. is a directory"),
        (("dir/", "ship1:/a/"), "dir/ is a directory"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    tmp_path, monkeypatch, texts, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlacesUnclear, match=said):
        plan(*texts)


def test_a_directory_that_is_not_there_is_a_failure_and_no_wrong_use(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LocalFailed, match="missing/: no such directory"):
        plan("ship1:/a", "missing/")
    with pytest.raises(LocalFailed, match="missing: no directory, and there are 2 sources"):
        plan("ship1:/a", "ship1:/b", "missing")
    with pytest.raises(LocalFailed, match="file: no directory, and there are 2 sources"):
        plan("ship1:/a", "ship1:/b", "file")
