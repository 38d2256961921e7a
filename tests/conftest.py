"""Settings of the whole suite, and a run that several modules look at."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.launching import GRID, EndedRun, finish, process_of, progress, start, wait_for

# Processes that tests start inherit these: one thread each, so that they don't fight for the cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Examples are counted, not timed: deadlines fail on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def run_with_a_death(tmp_path_factory: pytest.TempPathFactory) -> EndedRun:
    """A short run in which all kinds of things happen: episodes in every band of ε, an evaluation, an actor's death."""
    run = tmp_path_factory.mktemp("death") / "run"
    process = start(run, *GRID, "--actors.epsilon", "0.3", "--actors.epsilon-alpha", "7")
    wait_for(lambda: any(line["updates"] and line["actors_alive"] == 2 for line in progress(run)), process)
    os.kill(process_of("RemoteActor", process), signal.SIGKILL)
    wait_for(lambda: _has_a_new_actor(run) and (run / "best.pt").exists(), process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    return EndedRun(run, out)


def _has_a_new_actor(run: Path) -> bool:
    last = progress(run)[-1]
    return bool(last["restarts"] == 1 and last["actors_alive"] == 2)
