"""The arithmetic of deep Q-learning as pure functions, with time in the names."""

import torch
from torch import Tensor


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


def take_actions(q: Tensor, action: Tensor) -> Tensor:
    """[B], the Q-values [B, A] of one action, int64 [B], each."""
    return q.gather(1, action.unsqueeze(1)).squeeze(1)


def huber(td_error: Tensor, delta: float) -> Tensor:
    """[B], `x**2 / 2` where `|x| <= delta`, else `delta * (|x| - delta / 2)`; Huber, 1964."""
    return torch.nn.functional.huber_loss(td_error, torch.zeros_like(td_error), reduction="none", delta=delta)
