"""What a run under chaos has to show, computed from its progress."""

import itertools
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

WINDOW_S: Final = 10.0
NEWEST: Final = 12  # windows: a minute's
BURST_S: Final = 30.0
BACK: Final = 0.9  # of the speed before
MEDIAN_RECOVERY_S: Final = 15.0
LONGEST_RECOVERY_S: Final = 45.0
MEMORY_GROWTH: Final = 1.1
SAMPLES_PER_INSERT_TOLERANCE: Final = 0.1
SLOWED: Final = 0.8  # a run that is slower in the end than this share of its beginning has suffered

Progress = Sequence[dict[str, Any]]
Interval = tuple[float, float]
"""The run's seconds at which something began and ended."""


@dataclass(frozen=True)
class Kill:
    """Something that was killed.

    Attributes:
        what: "actor", "replay shard", "learner", "evaluator" or "node"; "… and …" where two were killed at once.
        time_s: of the run.
        before: env steps per second of the run before, as far as no kill disturbed it.
        recovery_s: until the start of the first window of ten seconds with 90 % of that, and with as many actors as
            before, which the next one has too; None: never.
    """

    what: str
    time_s: float
    before: float
    recovery_s: float | None


@dataclass
class Report:
    """The run as a whole."""

    kills: list[Kill]
    restarts: int
    told_on_terminal: int
    told_in_log: int
    told_on_curves: dict[str, int]  # by system/restarts/* of TensorBoard's file
    began_without_contents: int  # shards and learners that had to, though there was a checkpoint
    samples_per_insert: float
    samples_per_insert_setting: float
    lost_updates: int  # the most that a new learner had to make again, but for what the dead one had not told
    updates_in_an_interval: int  # most, between two checkpoints
    fallen_counters: list[str]  # others that ever fell
    memory_mib: list[float]  # of all processes, minute by minute from when the replay was full
    memory_mib_by_kind: dict[str, list[float]]  # the same by kind of process and the object store
    minutes: float  # that the run ran
    env_steps: int
    updates: int
    episodes: int
    evaluations: list[Interval]  # of those that came to their end
    burst_allowed: float  # samples, by the limiters' buffers and by how late both sides are reported
    speed_first: float  # env steps per second before the first kill
    speed_last: float  # and of the newest windows that no kill disturbed, before the last one
    largest_burst: float = 0.0  # samples beyond what the env steps of any half a minute stand for, resumed run included
    left_behind: list[str] = field(default_factory=list)
    exit_status: int = 0
    resumed: str = ""  # why the run could not go on afterwards; empty if it could

    @property
    def victims(self) -> dict[str, int]:
        """Processes that were killed, by role, apart from those that went with their node."""
        names = [name for kill in self.kills for name in kill.what.split(" and ") if name != "node"]
        return {name.replace(" ", "_"): names.count(name) for name in names}

    @property
    def memory_thirds_mib(self) -> tuple[float, float]:
        """Means of the first and the last third of the minutes."""
        third = max(1, len(self.memory_mib) // 3)
        return statistics.fmean(self.memory_mib[:third]), statistics.fmean(self.memory_mib[-third:])

    def misses(self) -> list[str]:
        """What does not hold, in words."""
        times = [kill.recovery_s for kill in self.kills]
        known = [time for time in times if time is not None]
        tolerance = SAMPLES_PER_INSERT_TOLERANCE * self.samples_per_insert_setting
        first, last = self.memory_thirds_mib
        untold = [kind for kind, number in self.victims.items() if self.told_on_curves.get(kind, 0) < number]
        told_on_curves = sum(self.told_on_curves.values())
        off = abs(self.samples_per_insert - self.samples_per_insert_setting)
        checks = [
            (None in times, f"{times.count(None)} kills were never recovered from"),
            (
                statistics.median(known or [0]) > MEDIAN_RECOVERY_S,
                f"half of the recoveries took over {MEDIAN_RECOVERY_S:g} s",
            ),
            (max(known, default=0) > LONGEST_RECOVERY_S, f"a recovery took over {LONGEST_RECOVERY_S:g} s"),
            (
                self.lost_updates > self.updates_in_an_interval,
                f"{self.lost_updates} updates were lost, more than a checkpoint's interval has",
            ),
            (bool(self.fallen_counters), f"counters fell: {', '.join(self.fallen_counters)}"),
            (off > tolerance, f"samples per insert are {self.samples_per_insert}"),
            (last > MEMORY_GROWTH * first, f"memory grew from {first:.0f} to {last:.0f} MiB"),
            (bool(untold), f"fewer restarts than kills of: {', '.join(untold)}"),
            (self.told_on_terminal != self.restarts, f"{self.told_on_terminal} of {self.restarts} on the terminal"),
            (self.told_in_log != self.restarts, f"{self.told_in_log} of {self.restarts} in the log"),
            (told_on_curves != self.restarts, f"{told_on_curves} of {self.restarts} on the curves"),
            (
                self.largest_burst > self.burst_allowed,
                f"{self.largest_burst:.0f} samples too many at once, where {self.burst_allowed:.0f} may be",
            ),
            (self.began_without_contents > 0, f"{self.began_without_contents} processes began without what was saved"),
            (
                self.speed_last < SLOWED * self.speed_first,
                f"{self.speed_first:.0f} env steps/s at first became {self.speed_last:.0f}",
            ),
            (bool(self.resumed), f"the run did not go on: {self.resumed}"),
            (bool(self.left_behind), f"left behind: {', '.join(self.left_behind)}"),
            (self.exit_status != 0, f"exit status {self.exit_status}"),
        ]
        return [text for missed, text in checks if missed]

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the recovery times' median and maximum, also by what was killed, and the misses."""
        kinds = sorted({kill.what for kill in self.kills})
        return {
            **asdict(self),
            **_recovery_times(self.kills),
            "by_kind": {kind: _recovery_times([k for k in self.kills if k.what == kind]) for kind in kinds},
            "memory_thirds_mib": self.memory_thirds_mib,
            "memory_mib_per_hour_by_kind": {kind: _slope(each) for kind, each in self.memory_mib_by_kind.items()},
            "victims": self.victims,
            "misses": self.misses(),
        }


def _slope(minutes: Sequence[float]) -> float | None:
    """Of the line through the minutes' values, per hour; None for less than two."""
    if len(minutes) < 2:
        return None
    return round(60 * statistics.linear_regression(range(len(minutes)), minutes).slope, 1)


def _recovery_times(kills: Sequence[Kill]) -> dict[str, Any]:
    known = [kill.recovery_s for kill in kills if kill.recovery_s is not None]
    return {
        "killed": len(kills),
        "median_recovery_s": statistics.median(known) if known else None,
        "longest_recovery_s": max(known, default=None),
    }


def windows(progress: Progress) -> list[tuple[float, float, float]]:
    """Start, end and env steps per second of every window of about ten seconds."""
    found = []
    for i, line in enumerate(progress):
        start = next(
            (other for other in reversed(progress[:i]) if line["time_s"] - other["time_s"] >= WINDOW_S - 1), None
        )
        if start is not None:
            seconds = line["time_s"] - start["time_s"]
            found.append((start["time_s"], line["time_s"], (line["env_steps"] - start["env_steps"]) / seconds))
    return found


def speed_before(progress: Progress, time_s: float, kills: Sequence[Kill], newest: int = 0) -> float:
    """Median env steps per second of the windows before, without those that a kill or its recovery lies in.

    All of them, so that a run which gets slower from kill to kill is not measured by itself.

    Args:
        progress: of the run.
        time_s: of the run.
        kills: earlier ones; one that was never recovered from disturbs everything after it.
        newest: so many windows, the last ones, instead of all.

    Returns:
        0 where there are no such windows.
    """
    rates = [
        rate
        for start, end, rate in windows(progress)
        if end <= time_s and not any(start < _back(kill) and kill.time_s < end for kill in kills)
    ]
    return statistics.median(rates[-newest:]) if rates else 0.0


def _back(kill: Kill) -> float:
    return math.inf if kill.recovery_s is None else kill.time_s + kill.recovery_s


def recovery(progress: Progress, time_s: float, before: float, actors: int) -> float | None:
    """Seconds from a kill to the start of the first window after it that is as good as before; None: not yet.

    That is, with 90 % of the speed and all actors at its end. The next window, five seconds later, must have both as
    well: after a learner's death actors play on for a moment.
    """
    alive = {line["time_s"]: line["actors_alive"] for line in progress}
    after = [
        (start, rate >= BACK * before and alive[end] >= actors)
        for start, end, rate in windows(progress)
        if start >= time_s
    ]
    starts = (start for (start, good), (_, lasts) in itertools.pairwise(after) if good and lasts)
    start = next(starts, None)
    return None if start is None else start - time_s


def largest_burst(progress: Progress, samples_per_insert: float) -> float:
    """The most samples, within half a minute, beyond those that its env steps stand for."""
    ahead = [(line["time_s"], line["samples"] - samples_per_insert * line["env_steps"]) for line in progress]
    bursts = [
        later - earlier
        for i, (start, earlier) in enumerate(ahead)
        for time_s, later in ahead[i + 1 :]
        if time_s - start <= BURST_S
    ]
    return max(bursts, default=0.0)


def fallen(progress: Progress, names: Sequence[str]) -> list[str]:
    """Counters that were ever less than before."""
    pairs = list(itertools.pairwise(progress))
    return [name for name in names if any(later[name] < earlier[name] for earlier, later in pairs)]


def lost_updates(log: str, progress: Progress) -> int:
    """The most that a new learner was behind the dead one, as the run said or as its counter shows."""
    found = re.findall(r"([\d,]+) updates are to be made again", log)
    falls = (int(earlier["updates"] - later["updates"]) for earlier, later in itertools.pairwise(progress))
    return max([0, *falls, *(int(number.replace(",", "")) for number in found)])
