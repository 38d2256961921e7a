"""Builds a learner from its settings: the same way in a Ray process and in a serial run."""

from common.config import AgentConfig, LearnerConfig
from common.seeding import role_seed, to_int
from common.types import EnvironmentSpec
from learner.learner import Learner


def build_learner(
    *, spec: EnvironmentSpec, agent: AgentConfig, learner: LearnerConfig, seed: int, device: str
) -> Learner:
    """A fresh learner; its network starts as the actors' do.

    Args:
        seed: the run's seed.
        device: as `Learner` takes it.
    """
    return Learner(
        spec,
        double=agent.double,
        munchausen=agent.munchausen,
        munchausen_temperature=agent.munchausen_temperature,
        target_epsilon=agent.target_epsilon,
        target_epsilon_late=agent.target_epsilon_late,
        target_epsilon_late_update=agent.target_epsilon_late_update,
        tree_backup=agent.tree_backup,
        gamma=agent.gamma,
        dueling=agent.dueling,
        architecture=agent.network,
        layer_norm=agent.layer_norm,
        quantiles=agent.quantiles,
        learning_rate=learner.learning_rate,
        learning_rate_final=learner.learning_rate_final,
        learning_rate_decay_updates=learner.learning_rate_decay_updates,
        random_shift=learner.random_shift,
        average_decay=learner.average_decay,
        adam_epsilon=learner.adam_epsilon,
        huber_delta=learner.huber_delta,
        max_grad_norm=learner.max_grad_norm,
        target_update_period=learner.target_update_period,
        device=device,
        precision=learner.precision,
        seed=to_int(role_seed(seed, "network")),
    )
