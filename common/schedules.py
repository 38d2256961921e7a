"""Exploration schedules: the epsilon of an epsilon-greedy policy."""


def ladder_epsilon(index: int, count: int, epsilon: float, alpha: float) -> float:
    """Epsilon of one of several environments: `epsilon ** (1 + alpha * index / (count - 1))`.

    Horgan et al., 2018 (Ape-X), section 4. Where `count` is 1 the formula divides by zero; the only
    environment then explores with `epsilon` itself, the value of the ladder's first rung.

    Args:
        index: which environment, 0 … count - 1; 0 explores the most.
        count: environments over all actors.
        epsilon: base, 0 … 1.
        alpha: exponent.

    Raises:
        ValueError: `index` is out of range.
    """
    if not 0 <= index < count:
        raise ValueError(f"index {index} is not one of {count} environments")
    rung = index / (count - 1) if count > 1 else 0.0
    return float(epsilon ** (1 + alpha * rung))


def decayed_epsilon(updates: int, start: float, final: float, decay: float) -> float:
    """One epsilon for all: `start` times `decay` per learner update, never below `final`."""
    return max(final, start * decay**updates)


def linear(step: float, *, first: float, last: float, steps: float) -> float:
    """From `first` at step 0 to `last` at `steps`, in a straight line; `last` from then on."""
    return first + (last - first) * min(1.0, step / steps)
