"""`docs/metrics.md` explains every figure that a run writes, and no other."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actors.remote import ActorReport
from common.types import Episode
from driver.counters import Counters, ShardTotals
from driver.metrics import window_scalars
from driver.window import Window
from tests.launching import EndedRun, progress

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
BAND = re.compile(r"/eps_[\w.]+$")
# How the page writes the names that depend on the settings.
PLACEHOLDERS = ((r"^(eval/\w+)/grid$", r"\1/<stage>"), (r"^(system/restarts)/actor$", r"\1/<role>"))


@dataclass(frozen=True)
class Written:
    """What a run left."""

    scalars: set[str]  # TensorBoard's, without those by band of ε
    bands: set[str]  # their suffixes
    keys: set[str]  # of all lines of progress.jsonl
    evaluation_keys: set[str]  # of all lines of evaluations.jsonl


@pytest.fixture(scope="module")
def written(run_with_a_death: EndedRun) -> Written:
    run = run_with_a_death.folder
    events = EventAccumulator(str(run))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    bands = {match.group() for tag in tags if (match := BAND.search(tag))}
    scalars = {as_in_page(tag) for tag in tags if not BAND.search(tag)}
    evaluations = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return Written(scalars, bands, set().union(*progress(run)), set().union(*evaluations))


def as_in_page(tag: str) -> str:
    """`eval/return/grid` -> `eval/return/<stage>`."""
    for pattern, replacement in PLACEHOLDERS:
        tag = re.sub(pattern, replacement, tag)
    return tag


def first_cells(section: str) -> list[str]:
    """What stands in the first column of a section's table."""
    body = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in body.splitlines() if line.startswith("| `")]


def test_every_scalar_is_explained(written: Written) -> None:
    assert {
        cell.strip("`") for cell in first_cells("TensorBoard") if "…" not in cell
    } == written.scalars | saved_starts() | of_several_stages()


def episode(stage: str, *, clear: bool, saved_start: bool = False) -> Episode:
    return Episode(stage, 10.0, 5, 40, 40, 300, clear, int(clear), False, 0.01, saved_start=saved_start)


def saved_starts() -> set[str]:
    """The scalars that the gridworld, whose states are not saved, does not have."""
    window = Window(saved_starts=[episode("1-1", clear=False, saved_start=True)])
    scalars = window_scalars(window, Counters(), ShardTotals(Counters()))
    return {tag for tag in scalars if tag.startswith("actor/saved_start")}


def of_several_stages() -> set[str]:
    """The scalars of a run on several stages, as the page has them."""
    return {re.sub(r"/\d-\d$", "/<stage>", tag) for tag in stage_scalars([episode("1-1", clear=True)])}


def stage_scalars(episodes: list[Episode]) -> dict[str, float]:
    """Those by stage, after two actors' reports."""
    window = Window()
    practice = [episode("1-2", clear=True, saved_start=True)]
    old, even, bent = {"1-1": 1.0, "1-2": 0.0, "1-3": 0.0}, {"1-1": 0.4, "1-2": 0.3, "1-3": 0.3}, {"1-1": 0.2}
    window.take_actor(ActorReport(50, episodes, practice, 1.0, 0.0, 1, 0.1, 0.4, 0, old))
    window.take_actor(ActorReport(50, [], [], 1.0, 0.0, 1, 0.1, 0.4, 1, {**bent, "1-2": 0.1, "1-3": 0.7}))
    window.take_actor(ActorReport(50, [], [], 1.0, 0.0, 1, 0.1, 0.4, 0, even))
    scalars = window_scalars(window, Counters(), ShardTotals(Counters()))
    return {tag: value for tag, value in scalars.items() if re.search(r"/\d-\d$", tag)}


def test_several_stages_have_their_shares_and_clear_rates() -> None:
    played = [episode("1-1", clear=True), episode("1-1", clear=False), episode("1-3", clear=False)]
    assert stage_scalars(played) == pytest.approx(
        {
            "actor/stage_share/1-1": 0.3,
            "actor/stage_share/1-2": 0.2,
            "actor/stage_share/1-3": 0.5,
            "actor/clear_rate/1-1": 0.5,
            "actor/clear_rate/1-3": 0.0,
        }
    )


def test_the_epsilon_bands_are_those_that_are_written(written: Written) -> None:
    explained = next(cell for cell in first_cells("TensorBoard") if "…" in cell)
    assert written.bands == set(re.findall(r"/eps_[\w.]+", explained))


def test_every_key_of_progress_is_explained(written: Written) -> None:
    assert {cell.strip("`") for cell in first_cells("`progress.jsonl`")} == written.keys


def test_every_key_of_evaluations_is_explained(written: Written) -> None:
    assert {cell.strip("`") for cell in first_cells("`evaluations.jsonl`")} == written.evaluation_keys
