"""The words of errors that the operating system had."""

import errno
import os

from appliance.errors import say_os_error
from appliance.methods.files.paths import failed


def test_where_nothing_may_be_written_the_way_out_of_the_cage_is_named():
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    for words in (say_os_error(error), str(failed("/etc/nginx/nginx.conf", error))):
        assert "read-only file system" in words
        assert "appliance setup allow --write" in words


def test_other_words_of_the_system_stand_for_themselves():
    assert say_os_error(OSError(errno.EACCES, os.strerror(errno.EACCES))) == "permission denied"
    assert say_os_error(OSError("no number")) == "no number"
