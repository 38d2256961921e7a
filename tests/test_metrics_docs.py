"""`docs/metrics.md` explains every figure that a run writes, and no other."""

import re
from dataclasses import replace
from pathlib import Path

from common.types import Episode, ShardStats
from driver.counters import Counters, ShardTotals
from driver.metrics import evaluation_scalars, progress_line, window_scalars
from driver.window import Window
from learner.remote import LearnerReport

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
BANDS = re.compile(r"/eps_[\w.]+$")
EPISODE = Episode(
    stage="1-1",
    episode_return=100.0,
    length=50,
    x_pos=400,
    time_left=300,
    clear=False,
    stages_cleared=0,
    truncated=False,
    epsilon=0.2,
)
LEARNED = LearnerReport(
    updates=1,
    total_updates=1,
    samples=64,
    seconds=1.0,
    waited_s=0.5,
    version=1,
    loss=1.0,
    td_error=1.0,
    q_mean=1.0,
    grad_norm=1.0,
    policy_lag=1.0,
)


def written() -> tuple[set[str], set[str], set[str]]:
    """TensorBoard's scalars, their ε bands, and the keys of `progress.jsonl`."""
    window = Window(seconds=1.0, episodes=[replace(EPISODE, epsilon=epsilon) for epsilon in (0.001, 0.05, 0.5)])
    window.take_learner(LEARNED)
    counters = Counters(restarts={"<role>": 1})
    totals = ShardTotals(counters)
    totals.take(0, ShardStats(10, 100, 1000, 10, 0, 0, 0), counters)
    scalars = {**window_scalars(window, counters, totals), **evaluation_scalars({"<stage>": [EPISODE]})}
    bands = {match.group() for name in scalars if (match := BANDS.search(name))}
    names = {name for name in scalars if not BANDS.search(name)}
    return names, bands, set(progress_line(window, counters, totals, 1))


def first_cells(section: str) -> list[str]:
    """What stands in the first column of a section's table."""
    body = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in body.splitlines() if line.startswith("| `")]


def test_every_scalar_is_explained() -> None:
    names, _, _ = written()
    assert {cell.strip("`") for cell in first_cells("TensorBoard") if "…" not in cell} == names


def test_the_epsilon_bands_are_those_that_are_written() -> None:
    _, bands, _ = written()
    explained = next(cell for cell in first_cells("TensorBoard") if "…" in cell)
    assert bands == set(re.findall(r"/eps_[\w.]+", explained))


def test_every_key_of_progress_is_explained() -> None:
    _, _, keys = written()
    assert {cell.strip("`") for cell in first_cells("`progress.jsonl`")} == keys
