"""What became of an evaluation, and which policy is the best so far."""

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from actors.remote import EvaluationReport
from common.config import Config, EvalConfig
from common.errors import UserError
from common.networks import build_network, unflatten_
from common.policy import load_policy, save_policy
from common.statistics import wilson_interval
from common.types import EnvironmentSpec, Episode
from driver.counters import Counters
from driver.run_directory import RunDirectory

_SCORE: Final = "score"

Score = tuple[float, float, float]
"""The lower end of the clear rate's interval; then, while less than half is cleared, mean x and mean return, else 0."""


def evaluation_interval_s(config: Config) -> float:
    """Seconds between evaluations: as many times longer as stages are played, so that they cost what one stage's do."""
    return config.eval.interval_s * len(config.eval.stages or config.env.stages)


class BestPolicy:
    """Keeps the policy with the highest score as `best.pt`; with several stages, by the episodes of all together.

    By the lower end of Wilson's interval a policy with 16 clears of 16 episodes does not take the place of one with 95
    of 96. Of two that cleared as many the later one stays, which has learned for longer: where Mario dies in the few
    others is chance. The episodes are the same in each evaluation of a run, and none that `evaluate.py` measures on.
    """

    def __init__(self, config: Config, spec: EnvironmentSpec, run: RunDirectory, score: Score | None) -> None:
        self._config = config
        self._spec = spec
        self._run = run
        self.score = max(filter(None, (score, _kept_score(run.best_policy))), default=None)

    @property
    def clear_rate(self) -> float:
        """The best policy's, the lower end of its interval; 0 before there is one."""
        return 0.0 if self.score is None else self.score[0]

    def consider(self, report: EvaluationReport, counters: Counters) -> bool:
        """Saves the evaluated policy if none was better; tells whether it did."""
        score = _score(_all(report))
        if self.score is not None and score < self.score:
            return False
        agent = self._config.agent
        network = build_network(self._spec, agent.dueling, 0, agent.network, agent.layer_norm, agent.quantiles)
        unflatten_(network, report.weights)
        metadata = policy_metadata(self._config, counters, report.updates) | {_SCORE: score}
        save_policy(self._run.best_policy, network, self._spec, metadata)
        self.score = score
        return True


def _score(episodes: list[Episode]) -> Score:
    clears = sum(e.clear for e in episodes)
    low, _ = wilson_interval(clears, len(episodes))
    if 2 * clears >= len(episodes):
        return low, 0.0, 0.0
    return low, statistics.fmean(e.x_pos for e in episodes), statistics.fmean(e.episode_return for e in episodes)


def _kept_score(path: Path) -> Score | None:
    """That of the policy on the disk, which may be better than the newest checkpoint knows of."""
    try:
        clear_rate, x, total = map(float, load_policy(path).metadata[_SCORE])  # type: ignore[call-overload]
    except (UserError, KeyError, TypeError, ValueError):  # there is none yet, or none of this version
        return None
    return clear_rate, x, total


def policy_metadata(config: Config, counters: Counters, updates: int) -> dict[str, Any]:
    """What goes into a policy's sidecar beside its network."""
    return {"env": asdict(config.env), "env_steps": counters.env_steps, "updates": updates, "seed": config.seed}


def protocol_options(evaluation: EvalConfig) -> str:
    """The options with which `evaluate.py` measures as the run's own evaluator did."""
    usual = EvalConfig()
    options = f" --stages {' '.join(evaluation.stages)}" if evaluation.stages else ""
    if evaluation.epsilon != usual.epsilon:
        options += f" --epsilon {evaluation.epsilon:g}"
    if evaluation.noop_max != usual.noop_max:
        options += f" --noop-max {evaluation.noop_max}"
    return options


def describe(report: EvaluationReport) -> str:
    """One line about an evaluation."""
    parts = []
    for stage, episodes in report.episodes.items():
        clears = sum(e.clear for e in episodes)
        low, high = wilson_interval(clears, len(episodes))
        x = statistics.fmean(e.x_pos for e in episodes)
        total = statistics.fmean(e.episode_return for e in episodes)
        parts.append(
            f"{stage}: {clears}/{len(episodes)} clear (95 % CI {100 * low:.0f}-{100 * high:.0f} %), "
            f"x {x:,.0f}, return {total:,.0f}"
        )
    return "; ".join(parts)


def describe_briefly(report: EvaluationReport) -> str:
    """For the display's one cell."""
    episodes = _all(report)
    x = statistics.fmean(e.x_pos for e in episodes)
    return f"{sum(e.clear for e in episodes)}/{len(episodes)} clear, x {x:,.0f}"


def _all(report: EvaluationReport) -> list[Episode]:
    return [episode for episodes in report.episodes.values() for episode in episodes]
