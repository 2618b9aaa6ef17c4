"""What `cp` takes its words for."""

import os

import pytest

from appliance.cli.copy_local import LocalFailed
from appliance.cli.copy_places import Place, PlacesUnclear, read_place
from appliance.cli.copy_plan import CopyWishes, Planner
from appliance.cli.copy_report import CopyState
from appliance.core.listing import Entry, has_wildcard, read_entries, write_entry


class FakeFleet:
    """Nodes by the targets that mean them, and files by node and path."""

    def __init__(self, groups=None, files=None):
        self._groups = groups or {}
        self._files = files or {}

    def nodes(self, targets, method):
        return self._groups.get(targets, [targets])

    def files(self, node, path, *, is_recursive):
        return self._files[node, path]


def plan_copies(texts, fleet=None, **wishes):
    return Planner(fleet or FakeFleet(), CopyWishes(**wishes)).plan(texts).jobs


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
        ("ship[12]:/x", "no node name"),
        ("ship*,:x:/x", "holds|no |absolute"),
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


def entry(path, match=None, kind="file", **facts):
    return Entry(path, match or path, kind, **facts)


def test_from_several_nodes_each_file_goes_into_a_directory_of_its_node(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fleet = FakeFleet({"ship*": ["ship1", "ship2"], "ship9*": ["ship9"]})
    jobs = plan_copies(["ship*:/var/log/x", "logs/"], fleet)
    assert [str(job.target) for job in jobs] == ["logs/ship1/x", "logs/ship2/x"]
    # one node that matches is no other case than two: a script finds its files in the same place
    assert [str(job.target) for job in plan_copies(["ship9*:/x", "logs"], fleet)] == [
        "logs/ship9/x"
    ]
    jobs = plan_copies(["ship*:/x", "hub:/in/"], fleet)
    assert [(str(job.target), job.makes_directories) for job in jobs] == [
        ("hub:/in/ship1/x", True),
        ("hub:/in/ship2/x", True),
    ]


def test_to_several_nodes_each_gets_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fleet = FakeFleet({"ship1,ship2": ["ship1", "ship2"]})
    jobs = plan_copies(["a", "ship1,ship2:/etc/f"], fleet)
    assert [str(job.target) for job in jobs] == ["ship1:/etc/f", "ship2:/etc/f"]


def test_directories_keep_what_is_below_them_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site" / "css").mkdir(parents=True)
    for name in ("index", "css/a"):
        (tmp_path / "site" / name).write_text(name)
    (tmp_path / "site" / "out").symlink_to("/etc/hostname")
    (tmp_path / "site" / "in").symlink_to("index")
    planner = Planner(FakeFleet(), CopyWishes(is_recursive=True))
    found = planner.plan(["site", "ship1:/srv/"])
    assert [(job.source.path, str(job.target)) for job in found.jobs] == [
        ("site/css/a", "ship1:/srv/site/css/a"),
        ("site/in", "ship1:/srv/site/in"),
        ("site/index", "ship1:/srv/site/index"),
    ]
    assert all(job.makes_directories for job in found.jobs)
    [left_out] = found.known
    assert (left_out.state, left_out.job.source.path) == (CopyState.SKIPPED, "site/out")
    # to a name that is no directory it goes under that name, as with cp
    jobs = plan_copies(["site", "ship1:/srv/www"], is_recursive=True)
    assert str(jobs[0].target) == "ship1:/srv/www/css/a"


def test_what_a_node_lists_goes_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = [
        entry("/srv/app/a", "/srv/app", size=3, mode=0o4750, modified_ns=5),
        entry("/srv/app/d", "/srv/app", "directory"),
        entry("/srv/app/d/b", "/srv/app"),
        entry("/srv/app/l", "/srv/app", "other", why="a link"),
    ]
    fleet = FakeFleet(files={("ship1", "/srv/app"): tree, ("ship1", "/srv/*"): tree[:2]})
    planner = Planner(fleet, CopyWishes(is_recursive=True, preserves=True))
    found = planner.plan(["ship1:/srv/app", "backup"])
    assert [str(job.target) for job in found.jobs] == ["backup/a", "backup/d/b"]
    assert found.jobs[0].attributes == (0o750, "", 5, "")
    assert "backup/d" in found.directories
    assert [outcome.state for outcome in found.known] == [CopyState.SKIPPED]
    flat = Planner(fleet, CopyWishes()).plan(["ship1:/srv/*", "backup"])
    assert [str(job.target) for job in flat.jobs] == ["backup/app/a"]
    assert "-r copies it" in flat.known[0].reason


@pytest.mark.parametrize(
    "bad",
    [
        entry("/srv/../etc/passwd", "/srv"),
        entry("/etc/passwd", "/srv"),
        entry("/srv/a//b", "/srv"),
        entry("srv", "srv"),
        entry("/srv/a\0", "/srv"),
        entry("/srv/a", "/srv", "device"),
        entry("/srv/a", "/srv", size=-1),
    ],
)
def test_list_that_leads_elsewhere_is_not_believed(bad):
    with pytest.raises(ValueError, match="list"):
        read_entries(write_entry(bad))


def test_list_is_read_as_it_was_written_and_only_whole():
    names = [entry("/srv/caf\udce9\n", "/srv", size=1), entry("/srv/b", "/srv")]
    text = b"".join(map(write_entry, names))
    assert read_entries(text) == names
    with pytest.raises(ValueError, match="not complete"):
        read_entries(text[:-1])
    assert has_wildcard("/a/[b]") is True
    assert has_wildcard("/a/b") is False
