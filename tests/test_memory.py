"""What a run's processes take of the memory, by its settings."""

from dataclasses import replace
from typing import Any

import pytest

from actors.cores import CoreName
from actors.environment import environment_spec
from common.config import Config
from common.errors import UserError
from common.presets import PRESETS
from driver.memory import learner_and_beside, room_for_replay, whole_machine
from driver.plan import Plan, make_plan

CONFIG = Config()
SPEC = environment_spec()
GIB = 1 << 30


def plan(config: Config, gpus: int = 0, core: CoreName = "fceumm") -> Plan:
    """On two cores, whichever emulator is installed."""
    made = make_plan(config, cpus=2, gpus=gpus, private=True)
    return replace(made, core=core if made.core else None)


def taken(config: Config, gpus: int = 0) -> int:
    """Bytes of all processes."""
    return sum(part.size for part in whole_machine(config, plan(config, gpus), SPEC))


def with_actors(**settings: Any) -> Config:
    return replace(CONFIG, actors=replace(CONFIG.actors, **settings))


def with_learner(**settings: Any) -> Config:
    return replace(CONFIG, learner=replace(CONFIG.learner, **settings))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_leaves_room_for_its_replay_on_a_machine_of_four_gib(name: str) -> None:
    config = PRESETS[name]
    assert room_for_replay(whole_machine(config, plan(config), SPEC), 4 * GIB) > config.replay.capacity * 1_250


def test_an_actor_of_eight_environments_takes_300_mib() -> None:
    assert taken(with_actors(count=64)) - taken(with_actors(count=1)) == 63 * 300 * 2**20


def test_each_environment_counts_in_each_actor() -> None:
    def environments(number: int, count: int) -> int:
        return taken(with_actors(count=count, envs_per_actor=number))

    one = environments(9, 1) - environments(8, 1)
    assert one > 0
    assert environments(1024, 3) - environments(8, 3) == 3 * 1016 * one
    assert environments(1024, 2) > 8 * GIB


def test_each_further_stage_takes_an_emulator_in_each_environment_and_saved_states_in_each_actor() -> None:
    def more(starts: float, count: int) -> int:
        config = with_actors(count=count, saved_starts=starts)
        several = replace(config, env=replace(config.env, stages=("1-1", "1-2", "1-3")))
        return taken(several) - taken(config)

    emulators = more(0, 2) - more(0, 1)
    assert emulators == 2 * 8 * 3 * 2**20
    assert more(0.5, 2) - more(0.5, 1) == emulators + 2 * 20 * 2**20


def test_starts_told_apart_by_height_are_more_in_each_actor_and_stage() -> None:
    def more(starts: float, stages: tuple[str, ...]) -> int:
        config = with_actors(count=2, saved_starts=starts)
        config = replace(config, env=replace(config.env, stages=stages))
        return taken(replace(config, actors=replace(config.actors, saved_start_heights=True))) - taken(config)

    assert more(0.5, ("1-1", "1-2")) == 2 * more(0.5, ("1-1",)) == 2 * 2 * 48 * 2**20
    assert more(0.0, ("1-1",)) == 0


def test_an_environment_on_nes_py_takes_less_and_one_without_an_emulator_hardly_anything() -> None:
    def of_actors(config: Config, core: CoreName) -> int:
        return next(part.size for part in whole_machine(config, plan(config, core=core), SPEC) if "actor" in part.what)

    large = with_actors(count=1, envs_per_actor=100)
    grid = replace(large, env=PRESETS["gridworld"].env)
    assert of_actors(grid, "fceumm") < of_actors(large, "nes-py") < of_actors(large, "fceumm")


def test_a_million_states_take_tens_of_gigabytes() -> None:
    assert taken(with_learner(batch_size=1_000_000)) > 56 * GIB


def test_every_batch_on_its_way_or_ready_counts() -> None:
    sizes = [taken(with_learner(batch_size=1_024, prefetch=prefetch)) for prefetch in (1, 2, 3, 4, 64)]
    assert sizes == sorted(set(sizes))
    states = 1_024 * 2 * 4 * 84 * 84
    assert sizes[4] - sizes[3] == 60 * states
    assert sizes[1] - sizes[0] > states  # one of them is ready then, too


def test_inputs_in_float32_take_twice_as_much() -> None:
    half, whole = (taken(with_learner(batch_size=4_096, precision=precision)) for precision in ("bfloat16", "float32"))
    assert whole > half + 4_096 * 2 * 4 * 84 * 84


def test_on_a_gpu_the_hosts_memory_holds_the_frames_alone() -> None:
    config = with_learner(batch_size=4_096)
    assert taken(config, gpus=1) < taken(config)


def test_actors_and_object_store_are_not_the_learners_nodes_alone() -> None:
    many = with_actors(count=64)
    assert learner_and_beside(many, plan(many), SPEC) == learner_and_beside(CONFIG, plan(CONFIG), SPEC)
    default = sum(part.size for part in learner_and_beside(CONFIG, plan(CONFIG), SPEC))
    assert default == pytest.approx((450 + 300 + 150) * 2**20, rel=0.1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (with_actors(count=100), "are for 100 actors of 8 environments: lower --actors.count"),
        (with_actors(count=1, envs_per_actor=1_024), "are for 1 actor of 1,024 environments: .* --actors.envs"),
        (with_learner(batch_size=50_000), "are for the learner with batches of 50,000: lower --learner.batch-size"),
        (replace(CONFIG, replay=replace(CONFIG.replay, shards=50)), "are for 50 empty replay shards: lower"),
    ],
)
def test_too_little_memory_is_refused_by_what_takes_most_of_it(config: Config, expected: str) -> None:
    with pytest.raises(UserError, match=rf"GiB of memory, but 4\.0 GiB are available; [\d.]+ {expected}") as error:
        room_for_replay(whole_machine(config, plan(config), SPEC), 4 * GIB)
    assert "\n" not in str(error.value)
