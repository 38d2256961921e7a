"""How far a policy's Q-values lie above what it really obtains.

As in van Hasselt et al., 2016 (figure 3), a policy plays nearly greedily, and for each state s_t that it visits

- *predicted* is max_a Q(s_t, a), and
- *obtained* is the discounted return sum_k gamma**k * r_(t+1+k) that followed in that episode,

both with the rewards as the run scaled them and its own discount. Their mean difference is the overestimation.
What exploration costs the policy while it is measured counts as overestimation too, so that epsilon should be small.

A death or a clear ends the return. Where an episode was cut off, the return is known in part only. It is not completed
with a Q-value, which would let the prediction vouch for itself; instead the last states, for which more than 1 % of the
bootstrap's weight is missing (gamma**remaining > 0.01), are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.environment import Environment
from actors.evaluation import PolicyFn

_MISSING: Final = 0.01
"""Weight of the unknown rest of a truncated episode's return, beyond which a state is left out."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredEpisode:
    """One evaluation episode; the attributes are a CSV's columns."""

    episode_return: float  # undiscounted, unscaled
    length: int  # agent steps
    x_pos: int  # largest, pixels
    clear: bool
    truncated: bool
    states: int  # that the two means below are over
    predicted: float  # mean max_a Q; NaN without states
    obtained: float  # mean discounted return, rewards scaled; NaN without states


class Estimate(NamedTuple):
    """Means over all the states of several episodes; NaN without states."""

    predicted: float
    obtained: float

    @property
    def overestimation(self) -> float:
        """Predicted minus obtained."""
        return self.predicted - self.obtained


def returns_to_go(rewards: Array, gamma: float) -> Array:
    """Discounted returns from each step on, float64 [T], of an episode's rewards, float64 [T]."""
    returns = np.empty(len(rewards))
    following = 0.0
    for t in reversed(range(len(rewards))):
        following = float(rewards[t]) + gamma * following
        returns[t] = following
    return returns


def known_states(length: int, truncated: bool, gamma: float) -> int:
    """The number of states, from an episode's first on, whose return is known (see the module)."""
    if not truncated:
        return length
    if gamma >= 1:
        return 0
    needed = math.ceil(math.log(_MISSING) / math.log(gamma)) if gamma > 0 else 1  # rewards
    return max(0, length - max(1, needed) + 1)


def measure_episode(
    values: Array, rewards: Array, *, reward_scale: float, gamma: float, x_pos: int, clear: bool, truncated: bool
) -> MeasuredEpisode:
    """Sums up an episode.

    Args:
        values: float64 [T], max_a Q of each state that was acted in.
        rewards: float64 [T], unscaled.
        reward_scale: the run's.
        gamma: the run's.
        x_pos: largest, pixels.
        clear: whether flag or axe was reached.
        truncated: whether it was cut off.
    """
    states = known_states(len(rewards), truncated, gamma)
    obtained = returns_to_go(rewards * reward_scale, gamma)
    return MeasuredEpisode(
        episode_return=float(rewards.sum()),
        length=len(rewards),
        x_pos=x_pos,
        clear=clear,
        truncated=truncated,
        states=states,
        predicted=float(values[:states].mean()) if states else math.nan,
        obtained=float(obtained[:states].mean()) if states else math.nan,
    )


def estimate(episodes: Sequence[MeasuredEpisode]) -> Estimate:
    """Means over all the states of the episodes."""
    known = [episode for episode in episodes if episode.states]
    if not known:
        return Estimate(math.nan, math.nan)
    weights = [episode.states for episode in known]
    return Estimate(
        float(np.average([episode.predicted for episode in known], weights=weights)),
        float(np.average([episode.obtained for episode in known], weights=weights)),
    )


def play_episode(
    env: Environment,
    policy: PolicyFn,
    *,
    stage: str,
    epsilon: float,
    reward_scale: float,
    gamma: float,
    seed: np.random.SeedSequence,
) -> MeasuredEpisode:
    """Plays one episode, epsilon-greedily, and measures it.

    Args:
        env: can be used again afterwards.
        policy: the Q-values.
        stage: the stage to play.
        epsilon: probability of a random action.
        reward_scale: the run's.
        gamma: the run's.
        seed: of the episode's start and its exploration.
    """
    start_seed, action_seed = seed.spawn(2)
    rng = np.random.default_rng(action_seed)
    state, info = env.reset(seed=start_seed, options={"stage": stage})
    values, rewards, x_pos = [], [], int(info["x_pos"])
    terminated = truncated = False
    while not (terminated or truncated):
        q_values = policy(state[None])[0]  # [A]
        values.append(float(q_values.max()))
        action = int(q_values.argmax())
        if rng.random() < epsilon:
            action = int(rng.integers(len(q_values)))
        state, reward, terminated, truncated, info = env.step(action)
        rewards.append(float(reward))
        x_pos = max(x_pos, int(info["x_pos"]))
    return measure_episode(
        np.array(values),
        np.array(rewards),
        reward_scale=reward_scale,
        gamma=gamma,
        x_pos=x_pos,
        clear=bool(info["clear"]),
        truncated=truncated,
    )
