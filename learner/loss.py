"""The arithmetic of deep Q-learning as pure functions, with time in the names."""

import math

import torch
from torch import Tensor

_LOWEST_LOG_POLICY = -1.0  # l_0 of the paper


def dqn_target(r_t: Tensor, discount_t: Tensor, q_t_target: Tensor, *, epsilon: Tensor | None = None) -> Tensor:
    """`r_t + discount_t * max_a q_t_target(a)`, Mnih et al., 2015.

    Args:
        r_t: [B], the n-step return up to the bootstrap.
        discount_t: [B], 0 where the episode terminated.
        q_t_target: [B, A], the target network's Q-values of s_t.
        epsilon: see `epsilon_greedy_value`.

    Returns:
        [B]
    """
    return r_t + discount_t * epsilon_greedy_value(q_t_target.amax(dim=1), q_t_target, epsilon)


def double_dqn_target(
    r_t: Tensor, discount_t: Tensor, q_t_online: Tensor, q_t_target: Tensor, *, epsilon: Tensor | None = None
) -> Tensor:
    """`r_t + discount_t * q_t_target(argmax_a q_t_online(a))`, van Hasselt et al., 2016.

    Args:
        r_t: [B], the n-step return up to the bootstrap.
        discount_t: [B], 0 where the episode terminated.
        q_t_online: [B, A], the online network's Q-values of s_t; they choose the action.
        q_t_target: [B, A], the target network's Q-values of s_t; they value it.
        epsilon: see `epsilon_greedy_value`.

    Returns:
        [B]
    """
    value = take_actions(q_t_target, q_t_online.argmax(dim=1))
    return r_t + discount_t * epsilon_greedy_value(value, q_t_target, epsilon)


def munchausen_target(
    r_t: Tensor,
    discount_t: Tensor,
    a_tm1: Tensor,
    q_tm1_target: Tensor,
    q_t_target: Tensor,
    *,
    alpha: float,
    temperature: float,
    epsilon: Tensor | None = None,
) -> Tensor:
    """The target of Munchausen DQN, Vieillard et al., 2020, equation 1.

    With the policy pi = softmax(q_target / temperature):
    `r_t + alpha * max(temperature * ln pi(a_tm1 | s_tm1), -1) + discount_t * sum_a pi(a | s_t) (q_t_target(a) -
    temperature * ln pi(a | s_t))`, whose sum is the soft maximum. With n-step returns the first action alone is
    rewarded for its probability.

    Args:
        r_t: [B], the n-step return up to the bootstrap.
        discount_t: [B], 0 where the episode terminated.
        a_tm1: int64 [B].
        q_tm1_target: [B, A], the target network's Q-values of s_tm1.
        q_t_target: [B, A], its Q-values of s_t.
        alpha: weight of the log-policy.
        temperature: of the policy, in units of scaled reward.
        epsilon: see `epsilon_greedy_value`.

    Returns:
        [B]
    """
    bonus = munchausen_bonus(a_tm1, q_tm1_target, alpha=alpha, temperature=temperature)
    soft_maximum = temperature * torch.logsumexp(q_t_target / temperature, dim=1)
    return r_t + bonus + discount_t * epsilon_greedy_value(soft_maximum, q_t_target, epsilon)


def munchausen_bonus(a_tm1: Tensor, q_tm1_target: Tensor, *, alpha: float, temperature: float) -> Tensor:
    """[B], the reward for the action taken's probability in `munchausen_target`, at most 0."""
    log_policy = torch.log_softmax(q_tm1_target / temperature, dim=1)
    return alpha * (temperature * take_actions(log_policy, a_tm1)).clamp(_LOWEST_LOG_POLICY, 0)


def epsilon_greedy_value(greedy_value: Tensor, q: Tensor, epsilon: Tensor | None) -> Tensor:
    """[B], the value of a state where a random action is taken with probability epsilon.

    `(1 - epsilon) * greedy_value + epsilon * mean_a q(a)`: Expected Sarsa (van Seijen et al., 2009) for the policy that
    is evaluated. Values of the greedy policy lead along the edges of pits, where one random action is fatal (Sutton &
    Barto, 2018, example 6.6).

    Args:
        greedy_value: [B], of the action that is not random.
        q: [B, A]
        epsilon: [B], see `window_epsilon`; None leaves the greedy value as it is.
    """
    return greedy_value if epsilon is None else torch.lerp(greedy_value, q.mean(dim=1), epsilon)


def window_epsilon(discount_t: Tensor, epsilon: Tensor, gamma: float) -> Tensor:
    """[B], the probability of at least one random action in the steps that a window takes, `1 - (1 - epsilon)**m`.

    A window of m steps holds greedy actions alone if it is cut before random ones. Counting them all at its end makes
    windows of all lengths, m = ln(discount_t) / ln(gamma), speak of the same policy.

    Args:
        discount_t: [B], gamma**m; of no matter where it is 0.
        epsilon: [], of one step.
        gamma: 0 < gamma < 1.
    """
    return 1 - discount_t ** (torch.log1p(-epsilon) / math.log(gamma))


def quantile_target(
    r_t: Tensor, discount_t: Tensor, policy: Tensor, entropy: Tensor | float, z_t_target: Tensor, epsilon: Tensor | None
) -> Tensor:
    """Targets of quantile regression, `r_t + discount_t * (sum_a policy(a) z_t_target(a) + entropy)`.

    With the greedy policy's probabilities 0 and 1 those of QR-DQN (Dabney et al., 2018), with the soft ones and the
    bonus in `r_t` those of Munchausen-IQN (Vieillard et al., 2020), which averages over actions as well.

    Args:
        r_t: [B], the n-step return up to the bootstrap.
        discount_t: [B], 0 where the episode terminated.
        policy: [B, A], probabilities of the actions in s_t.
        entropy: [B], times its temperature; 0 without one.
        z_t_target: [B, A, N], the target network's quantiles of s_t.
        epsilon: [B], see `epsilon_greedy_value`.

    Returns:
        [B, N]
    """
    if epsilon is not None:
        policy = torch.lerp(policy, torch.full_like(policy, 1 / policy.shape[1]), epsilon.unsqueeze(1))
    z = torch.bmm(policy.unsqueeze(1), z_t_target).squeeze(1)  # [B, N]
    if isinstance(entropy, Tensor):
        entropy = entropy.unsqueeze(1)
    return r_t.unsqueeze(1) + discount_t.unsqueeze(1) * (z + entropy)


def greedy_policy(q: Tensor) -> Tensor:
    """[B, A], 1 for the action of the largest Q-value [B, A], else 0."""
    return torch.nn.functional.one_hot(q.argmax(dim=1), q.shape[1]).to(q.dtype)


def quantile_huber(z_tm1: Tensor, target: Tensor, delta: float) -> Tensor:
    """[B], the quantile Huber loss of Dabney et al., 2018, equation 10: mean over targets, sum over quantiles.

    Args:
        z_tm1: [B, N], quantiles of the action taken, at the levels (i + 1/2) / N.
        target: [B, M]
        delta: kappa of the paper.
    """
    n = z_tm1.shape[1]
    levels = (torch.arange(n, device=z_tm1.device) + 0.5) / n
    error = target.unsqueeze(1) - z_tm1.unsqueeze(2)  # [B, N, M]
    weight = (levels.view(1, n, 1) - (error.detach() < 0).to(error.dtype)).abs()
    return (weight * huber(error, delta) / delta).mean(dim=2).sum(dim=1)


def take_actions(q: Tensor, action: Tensor) -> Tensor:
    """[B], the Q-values [B, A] of one action, int64 [B], each."""
    return q.gather(1, action.unsqueeze(1)).squeeze(1)


def huber(td_error: Tensor, delta: float) -> Tensor:
    """[B], `x**2 / 2` where `|x| <= delta`, else `delta * (|x| - delta / 2)`; Huber, 1964."""
    return torch.nn.functional.huber_loss(td_error, torch.zeros_like(td_error), reduction="none", delta=delta)
