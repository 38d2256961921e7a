"""Settings that cannot work are refused before anything starts, by the names that the user gave them."""

from collections.abc import Iterable, Sequence

from common.config import Config
from common.errors import UserError

STAGES = tuple(f"{world}-{stage}" for world in range(1, 9) for stage in range(1, 5))
WHOLE_GAME = "game"
ALL_STAGES = "all"


def validate(config: Config) -> None:
    """Raises UserError with the first setting that is out of its range or contradicts another."""
    for option, value, low, high in _ranges(config):
        if value is not None and not low <= value <= high:
            raise UserError(f"{option} {value:g} is out of range: it must lie between {low:g} and {high:g}")
    validate_stages("--env.stages", config.env.stages)
    if config.eval.stages:
        validate_stages("--eval.stages", config.eval.stages)
    _check_combinations(config)


def validate_stages(option: str, stages: tuple[str, ...]) -> None:
    """UserError unless `stages` are known, without repetition, and "game" stands alone."""
    if not stages:
        raise UserError(f"{option} names no stage; give some of 1-1 … 8-4, or {WHOLE_GAME}")
    for stage in stages:
        if stage not in (*STAGES, WHOLE_GAME):
            raise UserError(
                f"{option} {stage}: no such stage; there are 1-1 to 8-4, {WHOLE_GAME}, and, alone, {ALL_STAGES}"
            )
    if WHOLE_GAME in stages and len(stages) > 1:
        raise UserError(f"{option}: {WHOLE_GAME} is all stages in a row and stands alone")
    if len(set(stages)) != len(stages):
        raise UserError(f"{option}: a stage is named twice")


def expand_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """The stages that are meant: all 32 where "all" stands alone."""
    return STAGES if tuple(stages) == (ALL_STAGES,) else tuple(stages)


def _ranges(config: Config) -> Iterable[tuple[str, float | None, float, float]]:
    """(option, value, lowest, highest) of every bounded number; None is not checked."""
    big = 1e12
    env, agent, actors, replay = config.env, config.agent, config.actors, config.replay
    learner, evaluation, checkpoint = config.learner, config.eval, config.checkpoint
    yield "--env.frame-skip", env.frame_skip, 1, 60
    yield "--env.frame-stack", env.frame_stack, 1, 16
    yield "--env.noop-max", env.noop_max, 0, 1_000
    yield "--env.sticky-actions", env.sticky_actions, 0, 0.99
    yield "--env.max-steps", env.max_steps, 1, big
    yield "--env.step-ms", env.step_ms, 0, 60_000
    yield "--agent.gamma", agent.gamma, 0, 1
    yield "--agent.n-step", agent.n_step, 1, 100
    yield "--agent.munchausen", agent.munchausen, 0, 1
    yield "--agent.munchausen-temperature", agent.munchausen_temperature, 1e-6, 1e6
    yield "--agent.target-epsilon", agent.target_epsilon, 0, 0.99
    yield "--agent.target-epsilon-late", agent.target_epsilon_late, 0, 0.99
    yield "--agent.target-epsilon-late-update", agent.target_epsilon_late_update, 0, big
    yield "--agent.quantiles", agent.quantiles, 1, 1_024
    yield "--agent.flag-reward", agent.flag_reward, -1e6, 1e6
    yield "--agent.death-reward", agent.death_reward, -1e6, 1e6
    yield "--agent.reward-scale", agent.reward_scale, 1e-9, 1e9
    yield "--actors.count", None if actors.count == "auto" else actors.count, 1, 100_000
    yield "--actors.envs-per-actor", actors.envs_per_actor, 1, 1_024
    yield "--actors.epsilon", actors.epsilon, 0, 1
    yield "--actors.epsilon-alpha", actors.epsilon_alpha, 0, 100
    yield "--actors.epsilon-start", actors.epsilon_start, 0, 1
    yield "--actors.epsilon-final", actors.epsilon_final, 0, 1
    yield "--actors.epsilon-decay", actors.epsilon_decay, 0, 1
    yield "--actors.exploration-zeta", actors.exploration_zeta, 0, 100
    yield "--actors.saved-starts", None if actors.saved_starts == "auto" else actors.saved_starts, 0, 1
    yield "--actors.practice-steps", actors.practice_steps, 1, big
    yield "--actors.practice-opening", actors.practice_opening, 0, 1000
    yield "--actors.chunk-length", actors.chunk_length, 1, 10_000
    yield "--actors.max-inserts-in-flight", actors.max_inserts_in_flight, 1, 1_000
    yield "--actors.weights-poll-s", actors.weights_poll_s, 0, 3_600
    yield "--replay.shards", replay.shards, 1, 1_000
    yield "--replay.capacity", replay.capacity, 1, big
    yield "--replay.priority-exponent", replay.priority_exponent, 0, 1
    yield "--replay.importance-exponent", replay.importance_exponent, 0, 1
    yield "--replay.min-size", replay.min_size, 1, big
    yield "--replay.samples-per-insert", replay.samples_per_insert, 1e-6, 1e6
    yield "--replay.error-buffer", replay.error_buffer, 0, big
    yield "--learner.batch-size", learner.batch_size, 1, 1_000_000
    yield "--learner.learning-rate", learner.learning_rate, 1e-12, 10
    yield "--learner.learning-rate-final", learner.learning_rate_final, 0, 10
    yield "--learner.learning-rate-decay-updates", learner.learning_rate_decay_updates, 1, big
    yield "--learner.adam-epsilon", learner.adam_epsilon, 1e-16, 1
    yield "--learner.huber-delta", learner.huber_delta, 1e-9, 1e9
    yield "--learner.max-grad-norm", learner.max_grad_norm, 1e-9, 1e9
    yield "--learner.random-shift", learner.random_shift, 0, 32
    yield "--learner.average-decay", learner.average_decay, 0, 0.999_999
    yield "--learner.target-update-period", learner.target_update_period, 1, big
    yield "--learner.broadcast-period", learner.broadcast_period, 1, big
    yield "--learner.threads", None if learner.threads == "auto" else learner.threads, 1, 1_024
    yield "--learner.prefetch", learner.prefetch, 1, 64
    yield "--eval.interval-s", evaluation.interval_s, 0, big
    yield "--eval.episodes", evaluation.episodes, 1, 100_000
    yield "--eval.max-episodes", evaluation.max_episodes, 1, 100_000
    yield "--eval.epsilon", evaluation.epsilon, 0, 1
    yield "--eval.noop-max", evaluation.noop_max, 0, 1_000
    yield "--eval.max-steps", evaluation.max_steps, 1, big
    yield "--checkpoint.interval-s", checkpoint.interval_s, 1, big
    yield "--checkpoint.interval-updates", checkpoint.interval_updates, 1, big
    yield "--checkpoint.keep", checkpoint.keep, 1, 1_000
    yield "--ray.object-store-mb", config.ray.object_store_mb, 80, big
    yield "--ray.hang-s", config.ray.hang_s, 5, big
    yield "--seed", config.seed, 0, 2**63 - 1
    yield "--total-env-steps", config.total_env_steps, 1, big
    yield "--max-episodes", config.max_episodes, 1, big
    yield "--max-updates", config.max_updates, 1, big
    yield "--max-minutes", config.max_minutes, 1e-3, big


def largest_chunk(config: Config) -> int:
    """Transitions of the longest chunk: a full one less one, and an episode's n tail windows."""
    return config.actors.chunk_length - 1 + config.agent.n_step


def _check_combinations(config: Config) -> None:
    replay, batch = config.replay, config.learner.batch_size
    chunk = largest_chunk(config)
    if (config.agent.target_epsilon or config.agent.target_epsilon_late) and not 0 < config.agent.gamma < 1:
        raise UserError(
            f"--agent.target-epsilon needs a discount below 1 and above 0 to count steps by, not --agent.gamma "
            f"{config.agent.gamma:g}; leave it at 0"
        )
    if config.agent.munchausen and not config.agent.double:
        raise UserError(
            "--agent.no-double: Munchausen targets average over the next actions, whichever network would choose one; "
            "add --agent.munchausen 0, or leave it out"
        )
    if config.agent.tree_backup and not config.agent.watkins:
        raise UserError(
            "--agent.tree-backup sums along greedy actions, and with --agent.no-watkins windows hold others; "
            "take one of them away"
        )
    if config.learner.random_shift and config.env.name == "gridworld":
        raise UserError("--learner.random-shift moves pictures, and the gridworld has none; leave it at 0")
    if config.eval.max_episodes < config.eval.episodes:
        raise UserError(
            f"--eval.max-episodes {config.eval.max_episodes} is less than --eval.episodes {config.eval.episodes}, "
            "which every evaluation plays: raise the one or lower the other"
        )
    if replay.min_size > replay.capacity:
        raise UserError(
            f"--replay.min-size {replay.min_size} exceeds --replay.capacity {replay.capacity}: "
            "sampling would never begin"
        )
    per_shard = replay.capacity // replay.shards
    if per_shard < 2 * chunk:
        raise UserError(
            f"--replay.capacity {replay.capacity} over {replay.shards} shards leaves {per_shard} transitions each; "
            f"a chunk has up to {chunk} (chunk length and n-step), and a shard needs room for two: raise the capacity"
        )
    if per_shard - chunk < replay.min_size / replay.shards:
        raise UserError(
            f"--replay.min-size {replay.min_size} is too close to --replay.capacity {replay.capacity}: a shard of "
            f"{per_shard} may hold {chunk} less than that while it makes room for a chunk; lower the minimum"
        )
    if batch > replay.capacity:
        raise UserError(
            f"--learner.batch-size {batch} exceeds --replay.capacity {replay.capacity}: no batch would be without "
            "repetitions; lower the batch size, or raise the capacity"
        )
    needed = (chunk * replay.samples_per_insert + batch) / 2
    if replay.error_buffer is not None and replay.error_buffer < needed:
        raise UserError(
            f"--replay.error-buffer {replay.error_buffer:g} could deadlock: with chunks of up to {chunk} transitions, "
            f"{replay.samples_per_insert:g} samples per insert and batches of {batch} it must be at least {needed:g}"
        )
