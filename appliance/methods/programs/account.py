"""The user that a program runs as, where that is another one than our own."""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple

from appliance.errors import HandlerError
from appliance.methods.texts import shorten


class Account(NamedTuple):
    """A user as the system knows it. `is_other` tells that a program has to be made over to it."""

    name: str
    user_id: int
    group_id: int
    groups: tuple[int, ...]
    home: str
    shell: str
    is_other: bool

    @property
    def variables(self) -> dict[str, str]:
        """Those of the environment that name the user."""
        return {"USER": self.name, "LOGNAME": self.name, "HOME": self.home, "SHELL": self.shell}


def find_account(name: str) -> Account:
    """Look the user up.

    Raises:
        HandlerError: there is none, or this process may not run anything as another user.
    """
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise HandlerError(f"there is no user {shorten(name)} on this machine") from None
    is_other = found.pw_uid != os.geteuid()
    if is_other and os.geteuid() != 0:
        raise HandlerError(
            f"nothing can be run as {shorten(name)} here: that takes root's rights, which a"
            " runner has (`runner`)"
        )
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid)) if is_other else ()
    return Account(
        found.pw_name,
        found.pw_uid,
        found.pw_gid,
        groups,
        found.pw_dir,
        found.pw_shell or "/bin/sh",
        is_other,
    )
