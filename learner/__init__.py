"""Loss, update step, checkpoints and the learner's loop."""
