"""How many processes are started on which machine."""

from dataclasses import replace
from typing import Any, Literal

import pytest

from actors import fceumm
from common.config import ActorsConfig, Config, EnvConfig, LearnerConfig
from common.errors import UserError
from common.presets import PRESETS
from common.validation import largest_chunk
from driver.plan import error_buffer, make_plan
from replay.rate_limiter import minimum_error_buffer
from tests.cores import needs_fceumm

CONFIG = Config()


@pytest.mark.parametrize(
    ("cpus", "gpus", "actors", "device", "threads"),
    [
        (1, 0, 1, "cpu", 1),
        (2, 0, 2, "cpu", 1),
        (4, 0, 3, "cpu", 1),
        (16, 0, 12, "cpu", 4),
        (16, 1, 15, "cuda", 1),
    ],
)
def test_auto_fills_the_cores_that_the_learner_leaves(
    cpus: int, gpus: int, actors: int, device: str, threads: int
) -> None:
    plan = make_plan(CONFIG, cpus=cpus, gpus=gpus, private=True)
    assert (plan.actors, plan.learner_device, plan.learner_threads) == (actors, device, threads)


@needs_fceumm
def test_the_emulator_core_is_the_fastest_one_installed_or_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def core(name: Literal["auto", "nes-py", "fceumm"]) -> str | None:
        return make_plan(replace(CONFIG, env=EnvConfig(core=name)), cpus=2, gpus=0, private=True).core

    assert (core("auto"), core("nes-py")) == ("fceumm", "nes-py")
    monkeypatch.setattr(fceumm, "is_installed", lambda: False)
    assert core("auto") == "nes-py"
    with pytest.raises(UserError, match="fceumm is not installed"):
        core("fceumm")
    assert make_plan(PRESETS["gridworld"], cpus=2, gpus=0, private=True).core is None


def test_an_explicit_count_is_honoured_over_the_cores() -> None:
    plan = make_plan(replace(CONFIG, actors=ActorsConfig(count=50)), cpus=2, gpus=0, private=True)
    assert plan.actors == 50
    assert plan.cpus == 51


def test_cuda_is_refused_where_there_is_none_and_left_alone_when_the_cpu_is_asked_for() -> None:
    with pytest.raises(UserError, match="no GPU"):
        make_plan(replace(CONFIG, learner=LearnerConfig(device="cuda")), cpus=4, gpus=0, private=True)
    assert (
        make_plan(replace(CONFIG, learner=LearnerConfig(device="cpu")), cpus=4, gpus=1, private=True).learner_device
        == "cpu"
    )


def test_on_a_cluster_no_core_is_promised_twice() -> None:
    plan = make_plan(CONFIG, cpus=2, gpus=0, private=False)
    assert plan.cpus == 2


def test_the_limiters_tolerance_is_a_tenth_of_the_first_samples_or_twice_the_smallest() -> None:
    def tolerance(**changes: Any) -> float:
        return error_buffer(replace(CONFIG, replay=replace(CONFIG.replay, samples_per_insert=4.0, **changes)))

    smallest = minimum_error_buffer(4.0, largest_chunk(CONFIG), CONFIG.learner.batch_size)
    assert tolerance(min_size=5_000) == 2_000
    assert tolerance(min_size=5_000, shards=2) == 1_000
    assert tolerance(min_size=500) == 2 * smallest
    assert tolerance(min_size=5_000, error_buffer=400.0) == 400
