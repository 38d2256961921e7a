"""Settings of the whole suite."""

import os

import torch
from hypothesis import settings

# Processes that tests start inherit these: one thread each, so that they don't fight for the cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Examples are counted, not timed: deadlines fail on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
