"""What is told about jobs and cannot be written at once: what is kept of it, and what is told as lost."""

from appliance.core.current import Current
from appliance.core.outcome import Outcome
from appliance.core.specs import JobSettings
from appliance.errors import StoreFull
from appliance.jobs import writer as jobs_writer
from appliance.jobs.records import KeptJob, Target, TargetFacts, TargetState
from appliance.jobs.writer import JobWriter


class FileThatIsFullOnce:
    """Refuses the first write; `written` holds the texts of all that it took."""

    def __init__(self):
        self.is_full = True
        self.written = []

    async def write(self, statements):
        if self.is_full:
            self.is_full = False
            raise StoreFull("no room")
        self.written.append([text.split()[0] for text, _ in statements])


async def test_what_a_full_disk_takes_from_an_answer_is_told_with_the_next_write(monkeypatch):
    monkeypatch.setattr(jobs_writer, "RETRY_S", 0.0)
    file = FileThatIsFullOnce()
    writer = JobWriter(file, Current(JobSettings()))
    state = TargetState(outcome=Outcome(wants_answer=True))
    target = Target(1, KeptJob(1, "abc", 0.0), 7, TargetFacts(to="ship1", node="central"), state)
    writer.add_answer(target, "a-1", [("stdout", b"hello"), ("stderr", b"")])
    assert (target.kept_bytes, target.job.size_bytes) == (5, 5)
    writer.change(target)
    writer.order("PRAGMA incremental_vacuum", ())
    await writer.written()
    assert not writer.holds_answers
    assert (target.kept_bytes, target.job.size_bytes, state.forgotten_bytes) == (0, 0, 5)
    await writer.written()
    assert file.written == [["UPDATE", "PRAGMA"]]
    await writer.close()


async def test_a_message_that_nobody_asks_about_any_more_is_not_written():
    file = FileThatIsFullOnce()
    file.is_full = False
    writer = JobWriter(file, Current(JobSettings()))
    state = TargetState(outcome=Outcome())
    target = Target(1, KeptJob(1, "abc", 0.0), 7, TargetFacts(to="ship1", node="central"), state)
    writer.change(target)
    writer.forget(target)
    writer.order("PRAGMA incremental_vacuum", ())
    await writer.written()
    assert file.written == [["PRAGMA"]]
    await writer.close()
