"""Gives a file that is about to be put in place what it shall have beside its content."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from functools import lru_cache

from appliance.core.copying import Attributes


def name_owner(facts: os.stat_result) -> str:
    """Whose a file is, ``user:group``, numbers where they have no names."""
    return f"{_user(facts.st_uid)}:{_group(facts.st_gid)}"


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
    elif attributes.kept_owner:
        _keep_owner(file_fd, attributes.kept_owner)
    if attributes.mode is not None:
        os.fchmod(file_fd, attributes.mode)
    if attributes.modified_ns is not None:
        os.utime(file_fd, ns=(attributes.modified_ns, attributes.modified_ns))


def _keep_owner(file_fd: int, owner: str) -> None:
    """As cp -p does: each of user and group stays as it is where it is not known here, or not ours to give."""
    user, _, group = owner.partition(":")
    with contextlib.suppress(PermissionError, ValueError):
        os.fchown(file_fd, -1, _group_id(group) if group else -1)
    with contextlib.suppress(PermissionError, ValueError):
        os.fchown(file_fd, _user_id(user) if user else -1, -1)


@lru_cache(256)
def _user(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


@lru_cache(256)
def _group(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)


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
