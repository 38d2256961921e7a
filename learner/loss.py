"""The arithmetic of deep Q-learning as pure functions, with time in the names."""

import torch
from torch import Tensor

_LOWEST_LOG_POLICY = -1.0  # l_0 of the paper


def dqn_target(r_t: Tensor, discount_t: Tensor, q_t_target: Tensor) -> Tensor:
    """`r_t + discount_t * max_a q_t_target(a)`, Mnih et al., 2015.

    Args:
        r_t: [B], the n-step return up to the bootstrap.
        discount_t: [B], 0 where the episode terminated.
        q_t_target: [B, A], the target network's Q-values of s_t.

    Returns:
        [B]
    """
    return r_t + discount_t * q_t_target.amax(dim=1)


def double_dqn_target(r_t: Tensor, discount_t: Tensor, q_t_online: Tensor, q_t_target: Tensor) -> Tensor:
    """`r_t + discount_t * q_t_target(argmax_a q_t_online(a))`, van Hasselt et al., 2016.

    Args:
        r_t: [B], the n-step return up to the bootstrap.
        discount_t: [B], 0 where the episode terminated.
        q_t_online: [B, A], the online network's Q-values of s_t; they choose the action.
        q_t_target: [B, A], the target network's Q-values of s_t; they value it.

    Returns:
        [B]
    """
    return r_t + discount_t * take_actions(q_t_target, q_t_online.argmax(dim=1))


def munchausen_target(
    r_t: Tensor,
    discount_t: Tensor,
    a_tm1: Tensor,
    q_tm1_target: Tensor,
    q_t_target: Tensor,
    *,
    alpha: float,
    temperature: float,
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

    Returns:
        [B]
    """
    log_policy = torch.log_softmax(q_tm1_target / temperature, dim=1)
    bonus = alpha * (temperature * take_actions(log_policy, a_tm1)).clamp(_LOWEST_LOG_POLICY, 0)
    soft_maximum = temperature * torch.logsumexp(q_t_target / temperature, dim=1)
    return r_t + bonus + discount_t * soft_maximum


def take_actions(q: Tensor, action: Tensor) -> Tensor:
    """[B], the Q-values [B, A] of one action, int64 [B], each."""
    return q.gather(1, action.unsqueeze(1)).squeeze(1)


def huber(td_error: Tensor, delta: float) -> Tensor:
    """[B], `x**2 / 2` where `|x| <= delta`, else `delta * (|x| - delta / 2)`; Huber, 1964."""
    return torch.nn.functional.huber_loss(td_error, torch.zeros_like(td_error), reduction="none", delta=delta)
