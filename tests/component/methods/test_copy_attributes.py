"""What a file gets beside its content when it is put in place."""

import os

import pytest

from appliance.core.copying import Attributes
from appliance.methods.copies.attributes import name_owner, set_attributes


@pytest.fixture
def file_fd(tmp_path):
    file_fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR, 0o600)
    yield file_fd
    os.close(file_fd)


@pytest.fixture
def given(monkeypatch):
    """What is given away; users to nobody."""
    given = []

    def give(_file_fd, user_id, group_id):
        if user_id != -1:
            raise PermissionError(1, "not permitted")
        given.append((user_id, group_id))

    monkeypatch.setattr(os, "fchown", give)
    return given


def test_of_an_owner_that_is_kept_what_cannot_be_given_stays_as_it_is(file_fd, given):
    own = name_owner(os.fstat(file_fd))
    assert own.count(":") == 1
    set_attributes(file_fd, Attributes(mode=0o640, kept_owner="0:7"))
    assert given == [(-1, 7)]
    set_attributes(file_fd, Attributes(kept_owner="no-such-user:no-such-group"))
    assert given == [(-1, 7)]
    assert os.fstat(file_fd).st_mode & 0o777 == 0o640


def test_an_owner_that_was_asked_for_is_given_or_nothing_is(file_fd, given):
    with pytest.raises(PermissionError, match="not permitted to give it to 0:7"):
        set_attributes(file_fd, Attributes(owner="0:7", kept_owner="0:8"))
    with pytest.raises(ValueError, match="no user no-such-user"):
        set_attributes(file_fd, Attributes(owner="no-such-user"))
    assert given == []
