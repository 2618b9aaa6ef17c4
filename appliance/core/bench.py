"""What a benchmark runs and what comes of it, as values; see `daemon.bench` for how it is run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.core.latency import LatencyHistogram
from appliance.core.meter import Extent, Meter
from appliance.core.specs import AckOn

MIN_WARM_COUNT = 10
WARM_SHARE = 0.1
"""Of a number of messages; beside it the first `WARM_S` seconds, where a time is measured."""
WARM_S = 0.5
PACED_SHARE = 0.5
"""Latency is measured at this share of the rate that was reached at full speed."""
BEHIND_SHARE = 0.97
"""Below this share of the asked rate the load was not what was asked for."""


class ScenarioName(StrEnum):
    """Words of the JSON output."""

    BROKER = "broker"
    WINDOW = "window"
    BROKER_SINGLE = "broker_single"
    SINGLE = "single"
    BROKER_PACED = "broker_paced"
    PACED = "paced"


YARDSTICKS = {
    ScenarioName.WINDOW: ScenarioName.BROKER,
    ScenarioName.SINGLE: ScenarioName.BROKER_SINGLE,
    ScenarioName.PACED: ScenarioName.BROKER_PACED,
}
"""The bare round trip that each is held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """The command line. None means: as the config says, or by itself."""

    paths: tuple[str, ...]
    node: str | None = None
    state_dir: str | None = None
    default_state_dir: str = ""
    duration_s: float = 2.0
    count: int | None = None
    rounds: int = 3
    size_bytes: int = 256
    window: int | None = None
    concurrency: int | None = None
    serialization: str | None = None
    compression: str | None = None
    ack_on: str | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """What the config and the command line come to."""

    node: str
    """The declared node below whose name the subjects of the benchmark stand."""
    size_bytes: int
    window: int
    concurrency: int
    serialization: str
    compression: str
    ack_on: AckOn


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure. Without `rate` as fast as `window` allows, with it messages come due at that rate."""

    name: ScenarioName
    window: int
    rate: float | None = None

    @property
    def is_bare(self) -> bool:
        """Whether only the broker is asked: no store, no encoding, no handler."""
        return self.name in YARDSTICKS.values()


def full_speed_scenarios(window: int) -> list[Scenario]:
    """Each beside its yardstick, so that what the machine does meanwhile hits both."""
    scenarios = [Scenario(ScenarioName.BROKER, window), Scenario(ScenarioName.WINDOW, window)]
    if window > 1:
        scenarios += [Scenario(ScenarioName.BROKER_SINGLE, 1), Scenario(ScenarioName.SINGLE, 1)]
    return scenarios


def paced_scenarios(window: int, rate: float) -> list[Scenario]:
    """A load that is given and not found out."""
    return [
        Scenario(ScenarioName.BROKER_PACED, window, rate),
        Scenario(ScenarioName.PACED, window, rate),
    ]


def make_extent(duration_s: float, count: int | None) -> Extent:
    """What one round of a scenario measures, and what it leaves out before."""
    if count is not None:
        return Extent(warm_count=max(MIN_WARM_COUNT, int(count * WARM_SHARE)), measure_count=count)
    return Extent(warm_s=min(WARM_S, duration_s), measure_s=duration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor time of one side in one round, for so many messages; `loop_s` is that of its event loop's thread."""

    messages: int
    total_s: float
    loop_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One scenario, once. `lateness` is the load generator's own, where it had a rate to keep."""

    scenario: Scenario
    meter: Meter
    sender: Cost
    receiver: Cost
    lateness: LatencyHistogram | None = None
    is_overrun: bool = False
    """The rate was so far beyond what is possible that the round was cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a benchmark stands; `share` is that of the scenario, `rate` of this moment."""

    number: int
    rounds: int
    scenario: Scenario
    share: float
    rate: float
    is_done: bool = False


@dataclass(slots=True)
class Accounts:
    """What became of everything that was handed over; warm-ups included."""

    handed_over: int = 0
    acknowledged: int = 0
    missed: int = 0
    """Attempts without an acknowledgement; they are made again."""
    dead: int = 0
    handled: int = 0
    repeats: int = 0
    """Resends that the receiver knew, and did not handle again."""
    refused: int = 0

    @property
    def lost(self) -> int:
        """Acknowledged and never handled: must be none."""
        return max(0, self.acknowledged - self.handled)

    @property
    def doubled(self) -> int:
        """Handled more often than handed over: must be none."""
        return max(0, self.handled - self.handed_over)

    @property
    def is_sound(self) -> bool:
        """Whether everything was handled, once."""
        return self.handed_over == self.acknowledged == self.handled


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Some rounds of one figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)

    @property
    def noise(self) -> float:
        """Distance of the extremes as a share of the median: what of a difference the machine alone may have made."""
        middle = self.median
        return (max(self.values) - min(self.values)) / middle if middle else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All rounds of one scenario."""

    scenario: Scenario
    rate: Spread
    messages: int
    latency: LatencyHistogram
    rates_over_time: tuple[tuple[float, ...], ...]
    sender_us: tuple[float, float]
    """Microseconds of processor for a message: all, and of the event loop's thread."""
    receiver_us: tuple[float, float]
    lateness: LatencyHistogram | None = None
    is_behind: bool = False
    """The asked rate was not reached: latencies are those of an overload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """Everything a benchmark found out."""

    options: BenchOptions
    settings: BenchSettings
    server: str
    is_embedded: bool
    subject: str
    state_dir: str
    is_other_disk: bool
    payload_bytes: int
    """A message as it goes over the wire, without its headers."""
    summaries: tuple[Summary, ...] = ()
    accounts: Accounts = field(default_factory=Accounts)

    def find(self, name: ScenarioName) -> Summary | None:
        """The summary of a scenario that was run."""
        return next((item for item in self.summaries if item.scenario.name is name), None)

    def ratio(self, name: ScenarioName) -> Spread | None:
        """Rate as a share of the yardstick's, round by round; None without one, or at a given rate."""
        ours, bare = self.find(name), self.find(YARDSTICKS[name])
        if ours is None or bare is None or ours.scenario.rate is not None:
            return None
        pairs = zip(ours.rate.values, bare.rate.values, strict=True)
        return Spread(values=tuple(one / other if other else 0.0 for one, other in pairs))


def summarize(rounds: Sequence[Round]) -> tuple[Summary, ...]:
    """One summary for each scenario, in the order of the first round."""
    names = list(dict.fromkeys(item.scenario.name for item in rounds))
    return tuple(
        _summarize([item for item in rounds if item.scenario.name is name]) for name in names
    )


def _summarize(rounds: Sequence[Round]) -> Summary:
    latency = LatencyHistogram()
    lateness = LatencyHistogram()
    for item in rounds:
        latency.merge(item.meter.latency)
        if item.lateness is not None:
            lateness.merge(item.lateness)
    rate = Spread(values=tuple(item.meter.rate for item in rounds))
    asked = rounds[0].scenario.rate
    overrun = any(item.is_overrun for item in rounds)
    return Summary(
        scenario=rounds[0].scenario,
        rate=rate,
        messages=sum(item.meter.count for item in rounds),
        latency=latency,
        rates_over_time=tuple(tuple(item.meter.rates) for item in rounds),
        sender_us=_cost_us([item.sender for item in rounds]),
        receiver_us=_cost_us([item.receiver for item in rounds]),
        lateness=lateness if lateness.count else None,
        is_behind=asked is not None and (overrun or rate.median < asked * BEHIND_SHARE),
    )


def _cost_us(costs: Sequence[Cost]) -> tuple[float, float]:
    messages = sum(cost.messages for cost in costs)
    if not messages:
        return (0.0, 0.0)
    total, loop = sum(cost.total_s for cost in costs), sum(cost.loop_s for cost in costs)
    return (total / messages * 1e6, loop / messages * 1e6)
