"""Jobs in words."""

import pytest

from appliance.api.model import Job, JobNode
from appliance.cli.job_view import describe_what
from appliance.core.copying import Attributes, TargetPlace, join_target


@pytest.mark.parametrize(
    ("method", "args", "said"),
    [
        ("REQCopyFileTo", ["/home/a b", "ship1:/srv/a"], "cp '/home/a b' ship1:/srv/a"),
        ("REQCopyFileFrom", ["/srv/a", "central", "appliance-copy:12ab"], "cp ship1:/srv/a"),
        ("REQCopyFileFrom", ["/srv/a", "ship2", "/srv/b"], "cp ship1:/srv/a ship2:/srv/b"),
        (
            "REQCopyFileFrom",
            ["/srv/a", "ship2", *join_target(TargetPlace("/srv/b", True, Attributes(0o640)))],
            "cp ship1:/srv/a ship2:/srv/b",
        ),
        ("REQCopyFileFrom", ["/srv/a"], "cp /srv/a"),
        ("REQCopyFileFrom", [], "cp"),
    ],
)
def test_a_copy_is_told_as_it_was_typed(method, args, said):
    job = Job(command="cp", method=method, args=args, nodes=[JobNode(to="ship1")])
    assert describe_what(job) == said


def test_in_a_list_a_copy_is_told_without_its_node():
    job = Job(command="cp", method="REQCopyFileFrom", args=["/a", "central", "appliance-copy:1"])
    assert describe_what(job) == "cp /a"


def test_what_is_no_copy_is_told_by_its_method():
    job = Job(command="exec", method="REQCliCommand", args=["sh", "-c", "a b"])
    assert describe_what(job) == "REQCliCommand sh -c 'a b'"
