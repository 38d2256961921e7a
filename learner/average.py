"""A moving average of the online network's weights, which plays more evenly than the weights of any one update."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from common.networks import QNetwork


class WeightAverage:
    """An exponential moving average over updates (Polyak & Juditsky, 1992).

    Early on it spans the last tenth or so of the updates, so that the initial weights are soon forgotten.

    Args:
        network: the network that learns; not kept.
        decay: weight of the old average at each update, 0 < decay < 1; it spans about 1 / (1 - decay) updates.
    """

    def __init__(self, network: QNetwork, decay: float) -> None:
        self._decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def add(self, network: QNetwork, updates: int) -> None:
        """Takes the weights after so many updates in; the host does not wait for the device."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(network.parameters()), updates)
