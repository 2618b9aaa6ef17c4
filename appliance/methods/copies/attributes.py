"""Gives a file that is about to be put in place what it shall have beside its content."""

from __future__ import annotations

import grp
import os
import pwd

from appliance.core.copying import Attributes


def set_attributes(file_fd: int, attributes: Attributes) -> None:
    """Owner first, for that takes bits of the mode away; the time last, for nothing is written after it.

    Raises:
        ValueError: there is no such user or group.
        OSError: it is not ours to give.
    """
    if attributes.owner:
        user, colon, group = attributes.owner.partition(":")
        user_id = -1 if not user else _user_id(user)
        group_id = _group_id(group) if colon else -1
        try:
            os.fchown(file_fd, user_id, group_id)
        except PermissionError:
            raise PermissionError(1, f"not permitted to give it to {attributes.owner}") from None
    if attributes.mode is not None:
        os.fchmod(file_fd, attributes.mode)
    if attributes.modified_ns is not None:
        os.utime(file_fd, ns=(attributes.modified_ns, attributes.modified_ns))


def _user_id(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {name}") from None


def _group_id(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {name}") from None
