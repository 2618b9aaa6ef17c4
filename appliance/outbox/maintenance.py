"""What keeps the store small: blocks of remembered ids, forgetting, stragglers, room. A slice at a time.

Runs on the writer's thread, between batches. A slice is one commit, whatever it is of: with a commit for each sender,
ten thousand senders whose memory ends at the same hour would keep everybody from the disk for minutes.
"""

from __future__ import annotations

import os

from appliance.durable_file import takes_no_writes
from appliance.outbox import queries
from appliance.outbox.database import CommitPlan, Database
from appliance.outbox.dedupe import Change

FLUSH_IDS = 8_192
FLUSH_S = 60.0
"""Remembered ids become blocks when there are so many, or after so long."""
ID_SHARE = 4
"""Remembered ids may use this part of `state.max_bytes`."""
VACUUM_PAGES = 512


class Maintenance:
    """Owned by the writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._flush_due = database.clock.now() + FLUSH_S

    @property
    def is_flush_due(self) -> bool:
        """Whether ids should be written as blocks now."""
        return self._database.dedupe.recent_count >= FLUSH_IDS

    def forget(self) -> bool:
        """Flush, forget what is too old, and dead letters without room; True when more may be waiting."""
        database = self._database
        now, dedupe = database.clock.now(), database.dedupe
        window_s = database.settings.dedupe_window_s
        if self._should_flush(now):
            # on its own: forgetting looks at the blocks as they are after it
            self.flush()
        change = Change()
        warnings = dedupe.plan_forgetting(
            now - window_s, database.settings.max_bytes // ID_SHARE, change
        )
        if warnings:
            database.troubles.warning = warnings[-1]
        if change:
            plan = CommitPlan(change=change, verdicts_before=now - window_s)
            database.commit(plan, database.last_id)
        return queries.forget_letters(database) or len(change.gone) + len(change.ended) > 0

    def flush(self) -> None:
        """Write remembered ids as blocks."""
        change = self._database.dedupe.plan_flush(self._database.settings.dedupe_window_s)
        self._flush_due = self._database.clock.now() + FLUSH_S
        if change:
            self._database.commit(CommitPlan(change=change), self._database.last_id)

    def _should_flush(self, now: float) -> bool:
        dedupe = self._database.dedupe
        if not dedupe.recent_count:
            return False
        oldest = min(one.recent_oldest for one in dedupe.senders.values() if one.recent)
        window_s = self._database.settings.dedupe_window_s
        return (
            self.is_flush_due
            or now >= self._flush_due
            or now - oldest > min(FLUSH_S, window_s / 16)
        )

    def delete_gone(self) -> None:
        """Delete commits that nothing needs any more, if there are some."""
        database = self._database
        if not database.segments.choose_gone(database.commits):
            return
        was_tight, database.is_tight = database.is_tight, True
        try:
            database.commit(CommitPlan(), database.last_id)
        finally:
            database.is_tight = was_tight

    def give_back_space(self, *, urgently: bool) -> None:
        """Shrink the file a little when much of it is unused; `urgently` by all of that, and the log too."""
        connection = self._database.connection
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        if not urgently:
            if free > 4 * VACUUM_PAGES:
                connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            return
        step = VACUUM_PAGES // 8  # the log grows by about as much before it is folded again
        for _ in range(0, free, step):
            connection.execute(f"PRAGMA incremental_vacuum({step})").fetchall()
            self._database.fold_log()

    def has_room(self) -> bool:
        """Whether quota and disk have some room again."""
        connection = self._database.connection
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        most = connection.execute("PRAGMA max_page_count").fetchone()[0]
        disk = os.statvfs(self._database.directory)
        return free + most - used > 32 and disk.f_bavail * disk.f_frsize > 256 * 1024

    def is_read_only(self) -> bool:
        """Whether the file system takes no writes."""
        return takes_no_writes(self._database.directory)
