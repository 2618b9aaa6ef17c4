"""What a full disk did not take is written when there is room, and its trouble is told once."""

import asyncio
import errno

from appliance.reconcile.kept_files import OnDisk


class Disk:
    def __init__(self):
        self.holds = "nothing"
        self.number = errno.ENOSPC

    def save(self, value):
        if self.number:
            raise OSError(self.number, "no", f"/state/.tmp-{id(value)}")
        self.holds = value


def make():
    disk, told = Disk(), []
    return disk, told, OnDisk("the pin", disk.save, told.append)


def test_the_newest_value_is_written_once_there_is_room():
    async def scenario():
        disk, told, kept = make()
        await kept.put("first")
        await kept.put("second")
        await kept.catch_up()
        assert (disk.holds, kept.is_kept, len(told)) == ("nothing", False, 1)
        disk.number = 0
        await kept.catch_up()
        assert (disk.holds, kept.is_kept) == ("second", True)

    asyncio.run(scenario())


def test_trouble_is_told_again_when_it_came_back_and_a_value_of_none_is_one_too():
    async def scenario():
        disk, told, kept = make()
        await kept.put("first")
        disk.number = 0
        await kept.catch_up()
        disk.number = errno.EROFS
        await kept.put(None)
        await kept.catch_up()
        assert ["the pin is not on disk" in text for text in told] == [True, True]
        disk.number = 0
        await kept.catch_up()
        assert (disk.holds, kept.is_kept) == (None, True)

    asyncio.run(scenario())
