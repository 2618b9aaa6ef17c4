"""A config on a laptop is planned as if it stood where the daemon's does."""

import pytest

from appliance.cli.plan_places import Places

ETC = "/etc/appliance"


@pytest.mark.parametrize(
    ("name", "here", "there", "moved"),
    [
        ("/home/a/fleet/x.yaml", ["/home/a/fleet"], [ETC], f"{ETC}/x.yaml"),
        ("/home/a/fleet/nodes/x.yaml", ["/home/a/fleet/"], [ETC], f"{ETC}/nodes/x.yaml"),
        ("/home/a/x.yaml", ["/home/a/x.yaml"], [f"{ETC}/main.yaml"], f"{ETC}/main.yaml"),
        ("/home/a/x.yaml", ["/home/a/x.yaml"], [ETC], f"{ETC}/x.yaml"),
        ("/b/x.yaml", ["/a", "/b"], ["/1", "/2"], "/2/x.yaml"),
        # what has no counterpart stays where it is
        ("/ab/x.yaml", ["/a"], [ETC], "/ab/x.yaml"),
        ("/a/x.yaml", ["/a"], ["/1", "/2"], "/a/x.yaml"),
        ("/a/x.yaml", ["/a"], [f"{ETC}/main.yaml"], "/a/x.yaml"),
    ],
)
def test_a_file_goes_where_the_path_it_was_found_by_stands(name, here, there, moved):
    assert Places([name], here, there).there(name) == moved


def test_problems_are_told_in_the_files_here():
    places = Places(["/home/a/x.yaml"], ["/home/a"], [ETC])
    told = places.told_here(
        {
            "problems": [{"file": f"{ETC}/x.yaml", "line": 3}, {"file": None}],
            "warnings": [{"file": f"{ETC}/y.yaml"}],
            "result": "refused",
        }
    )
    assert told["problems"] == [{"file": "/home/a/x.yaml", "line": 3}, {"file": None}]
    assert told["warnings"] == [{"file": f"{ETC}/y.yaml"}]
    assert told["result"] == "refused"
