"""Proportional sampling in logarithmic time (prioritized replay: Schaul et al., 2016, appendix B.2.1)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


class SumTree:
    """Non-negative values at indices 0 … capacity-1, drawn in proportion to their size.

    A binary heap in one float64 array: node i has the children 2i and 2i + 1, node 1 is the root and leaf j is
    node `leaves + j`. Interior nodes are always computed as the sum of their children, never by adding a
    difference, so that rounding errors do not build up. All operations take whole batches.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._depth = (capacity - 1).bit_length()
        self._leaves = 1 << self._depth
        self._nodes = np.zeros(2 * self._leaves, np.float64)

    @property
    def capacity(self) -> int:
        """Number of values."""
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes of the tree."""
        return self._nodes.nbytes

    @property
    def total(self) -> float:
        """Sum of all values."""
        return float(self._nodes[1])

    def get(self, indices: ArrayLike) -> NDArray[np.float64]:
        """Values at int64 indices [n], float64 [n]."""
        return self._nodes[self._leaf_nodes(indices)]

    def set(self, indices: ArrayLike, values: ArrayLike) -> None:
        """Replaces the values at int64 indices [n] by float64 values [n]; where an index repeats, its last value stays.

        Raises:
            ValueError: a value is negative or not finite, or the lengths differ; nothing is changed.
            IndexError: an index is outside of 0 … capacity-1; nothing is changed.
        """
        nodes = self._leaf_nodes(indices)
        new = np.asarray(values, np.float64)
        if new.shape != nodes.shape:
            raise ValueError(f"{nodes.shape} indices for {new.shape} values")
        if not (np.isfinite(new) & (new >= 0)).all():
            raise ValueError("values must be finite and not negative")
        self._nodes[nodes] = new
        for _ in range(self._depth):
            nodes = nodes >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def sample(self, u: ArrayLike) -> NDArray[np.int64]:
        """The index whose stretch of the running sum each u falls into.

        Args:
            u: float64 [n] in [0, total).

        Returns:
            int64 [n]; never the index of a zero, not even where rounding puts u past the end of its subtree.

        Raises:
            ValueError: all values are zero, or a u is outside of [0, total].
        """
        rest = np.array(u, np.float64)
        if self.total <= 0:
            raise ValueError("nothing to sample: all values are zero")
        if not ((rest >= 0) & (rest <= self.total)).all():
            raise ValueError(f"u must be in [0, {self.total})")
        nodes = np.ones(rest.shape, np.int64)
        for _ in range(self._depth):
            nodes *= 2
            left = self._nodes[nodes]
            goes_right = (rest >= left) & (self._nodes[nodes + 1] > 0)
            rest -= np.where(goes_right, left, 0.0)
            nodes += goes_right
        return nodes - self._leaves

    def check_valid(self) -> tuple[bool, str]:
        """Whether the tree is consistent, and if not, why."""
        leaves = self._nodes[self._leaves :]
        if not (np.isfinite(leaves) & (leaves >= 0)).all():
            return False, "a value is negative or not finite"
        if not np.isfinite(self.total):
            return False, "the sum of the values is not finite"
        if leaves[self._capacity :].any():
            return False, "a value lies beyond the capacity"
        parents = np.arange(1, self._leaves)
        if (self._nodes[parents] != self._nodes[2 * parents] + self._nodes[2 * parents + 1]).any():
            return False, "an interior node is not the sum of its children"
        return True, ""

    def _leaf_nodes(self, indices: ArrayLike) -> NDArray[np.int64]:
        index = np.asarray(indices, np.int64)
        if ((index < 0) | (index >= self._capacity)).any():
            raise IndexError(f"indices must be in 0 … {self._capacity - 1}")
        return index + self._leaves
