"""Every random number generator of a run comes from its one seed.

`numpy.random.SeedSequence` spawns independent streams; a role's stream depends on its name, index and
incarnation alone, so that adding an actor changes nobody else's numbers.
"""

from typing import Literal

import numpy as np

Role = Literal["actor", "replay", "learner", "evaluator", "network"]
_ROLE_KEYS: dict[Role, int] = {"actor": 0, "replay": 1, "learner": 2, "evaluator": 3, "network": 4}


def role_seed(seed: int, role: Role, index: int = 0, incarnation: int = 0) -> np.random.SeedSequence:
    """The seed sequence of one process.

    Args:
        seed: the run's seed.
        role: which role.
        index: its index among its kind.
        incarnation: how many times it was replaced; a replacement must not repeat its predecessor's numbers.
    """
    return np.random.SeedSequence(seed, spawn_key=(_ROLE_KEYS[role], index, incarnation))


def to_int(sequence: np.random.SeedSequence) -> int:
    """A 63-bit seed for libraries that take an integer, such as torch."""
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
