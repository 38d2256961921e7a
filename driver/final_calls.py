"""What is asked of the processes after their last slices, one question after the other."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import ray
from ray.exceptions import RayError

from driver.calls import Failure
from driver.failures import RunFailedError, cause, failed
from driver.role_names import LEARNER
from driver.supervisor import Supervisor

_SLICE_S: Final = 1.0


def learner_state(supervisor: Supervisor, timeout_s: float) -> dict[str, Any]:
    """The learner's state.

    Raises:
        RunFailedError: it is dead, or does not answer in time.
    """
    if supervisor.learner is None:
        raise RunFailedError("the learner has not begun")
    try:
        state: dict[str, Any] = ray.get(supervisor.learner.state.remote(), timeout=timeout_s)
    except RayError as error:
        raise failed(Failure(LEARNER, error)) from error
    return state


def final_shard_stats(supervisor: Supervisor, timeout_s: float) -> None:
    """Brings the shards' counters up to date, as far as the shards still answer."""
    references = {shard.stats.remote(): index for index, shard in enumerate(supervisor.shards)}
    ready, _ = ray.wait(list(references), num_returns=len(references), timeout=timeout_s)
    for reference in ready:
        with contextlib.suppress(RayError):  # the counters stay as they were last heard
            supervisor.listener.shard(references[reference], ray.get(reference))


def final_evaluation(supervisor: Supervisor, best: float, timeout_s: float, interrupted: Callable[[], bool]) -> None:
    """Evaluates the policy of the last broadcast; the report goes to the listener.

    Given up, with a line, when it takes too long, when `interrupted` says so or when the evaluator is gone.

    Args:
        best: see `RemoteEvaluator.begin`.
    """
    learner, evaluator, listener = supervisor.learner, supervisor.evaluator, supervisor.listener
    if learner is None or evaluator is None:
        return
    deadline = time.monotonic() + timeout_s
    try:
        updates, references = ray.get(learner.policy.remote(), timeout=timeout_s)
        ray.get(evaluator.begin.remote(references, updates, best), timeout=timeout_s)
        while time.monotonic() < deadline and not interrupted():
            report = ray.get(evaluator.run.remote(_SLICE_S), timeout=timeout_s)
            if report is not None:
                listener.evaluation(report)
                return
    except RayError as error:
        listener.event(f"the final evaluation failed: {cause(error)}")
        return
    listener.event("the final evaluation was cut short")
