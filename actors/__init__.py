"""Environments, the n-step accumulator, the actor and the evaluator."""

import gym_notices.notices

# gym prints a notice about its maintenance on stderr when it is imported. Its two limits, NumPy 2 above all,
# are met in `actors.cores` and `actors.mario`, and a user can do nothing about it.
gym_notices.notices.notices.clear()
