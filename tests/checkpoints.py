"""Runs and checkpoints that are made in a moment."""

import functools
from pathlib import Path
from typing import Any

from actors.environment import environment_spec
from common.config import AgentConfig, Config, LearnerConfig
from driver.counters import Counters
from driver.options import dump_config
from driver.provenance import describe_origin
from driver.run_directory import RunDirectory
from learner.checkpoint import save_checkpoint
from learner.factory import build_learner

SPEC = environment_spec(name="gridworld")


def make_run(path: Path, config: Config | None = None) -> RunDirectory:
    """A run's folder without checkpoints."""
    run = RunDirectory(path)
    run.create(dump_config(config or Config()), describe_origin("default", []))
    return run


def save_step(run: RunDirectory, step: int) -> Path:
    """A checkpoint of the run after so many updates; its folder."""
    state = {"counters": Counters(updates=step).to_json(), "best": None}
    return save_checkpoint(run.checkpoints, _learner() | {"updates": step}, spec=SPEC, metadata={}, state=state)


@functools.cache
def _learner() -> dict[str, Any]:
    return build_learner(spec=SPEC, agent=AgentConfig(), learner=LearnerConfig(), seed=0, device="cpu").state_dict()
