"""Everything an operator can see or ask of a running daemon: whom the routes of the API call."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.api.config_sets import ConfigSets
from appliance.api.copy_jobs import CopyJobs
from appliance.api.enrolment import EnrolmentDesk
from appliance.api.inbox import Inbox
from appliance.api.job_ending import JobEnding
from appliance.api.jobs import JobsView
from appliance.api.outbox import Outbox
from appliance.api.programs import ProgramWords
from appliance.api.standings import Standings
from appliance.api.status import StatusView
from appliance.api.streams_kept import StreamsKept
from appliance.api.submission import Submission
from appliance.api.targets import TargetChooser
from appliance.telemetry.events import EventHub
from appliance.workers.waiters import AbandonedRequests


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """One part for each question. Called on the event loop; what cannot be done is raised as an `ApplianceError`."""

    view: StatusView
    sets: ConfigSets
    events: EventHub
    submission: Submission
    targets: TargetChooser
    standings: Standings
    abandoned: AbandonedRequests
    copies: CopyJobs
    jobs: JobsView
    ending: JobEnding
    programs: ProgramWords
    outbox: Outbox
    inbox: Inbox
    streams: StreamsKept
    enrolment: EnrolmentDesk
