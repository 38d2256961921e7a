"""Named starting points; a YAML file and command-line options change them further."""

from dataclasses import replace

from common.config import (
    ActorsConfig,
    AgentConfig,
    CheckpointConfig,
    Config,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    RayConfig,
    ReplayConfig,
)

# What both tutorials share. One actor with one environment, one shard, chunks of one transition and new weights
# after every update: with 32 samples per insert and batches of 32, the tightest rate limiter that cannot
# deadlock makes actor and learner take turns, one update per step, as the tutorials' loops do.
_TUTORIAL_ACTOR = ActorsConfig(
    count=1,
    envs_per_actor=1,
    precision="float32",
    exploration="schedule",
    exploration_zeta=0.0,
    saved_starts=0.0,
    saved_start_heights=False,
    practice_steps=None,
    practice_opening=0,
    chunk_length=1,
    max_inserts_in_flight=1,
    weights_poll_s=0.0,
)
_TUTORIAL_AGENT = AgentConfig(
    gamma=0.9,
    n_step=1,
    watkins=False,
    double=True,
    munchausen=0.0,
    target_epsilon=0.0,
    target_epsilon_late=None,
    tree_backup=False,
    quantiles=1,
    dueling=False,
    network="nature",
    layer_norm=False,
    flag_reward=0.0,
    death_reward=0.0,
    reward_scale=1.0,
)
_TUTORIAL_LEARNER = LearnerConfig(
    batch_size=32,
    learning_rate=2.5e-4,
    learning_rate_final=None,
    random_shift=0,
    average_decay=0.0,
    adam_epsilon=1e-8,
    huber_delta=1.0,
    max_grad_norm=None,
    # Updates; as there is one per step, also steps. The article does not give its period: this is the notebook's.
    target_update_period=5_000,
    broadcast_period=1,
    precision="float32",
    prefetch=1,
)
_TUTORIAL_REPLAY = ReplayConfig(
    shards=1,
    priority_exponent=0.0,
    importance_exponent=0.0,
    min_size=32,
    samples_per_insert=32.0,
    error_buffer=32.0,
)

PRESETS: dict[str, Config] = {
    "default": Config(),
    # The notebook "Solving Super Mario SNES using DQN" (which is about the NES game).
    "notebook": Config(
        env=EnvConfig(actions="simple", noop_max=0, show_buttons=False),
        agent=_TUTORIAL_AGENT,
        actors=replace(_TUTORIAL_ACTOR, epsilon_start=1.0, epsilon_final=0.02, epsilon_decay=0.9999),
        replay=replace(_TUTORIAL_REPLAY, capacity=20_000),
        learner=_TUTORIAL_LEARNER,
        eval=EvalConfig(stages=("1-3",), epsilon=0.05, noop_max=0, interval_s=600.0),
        checkpoint=CheckpointConfig(interval_s=None, interval_updates=10_000),
        seed=42,
        max_episodes=10_000,
    ),
    # The article on double deep Q-learning; `--agent.no-double` is what its code computes.
    "article": Config(
        env=EnvConfig(actions="right_only", noop_max=0, show_buttons=False),
        agent=_TUTORIAL_AGENT,
        actors=replace(_TUTORIAL_ACTOR, epsilon_start=0.02, epsilon_final=0.02, epsilon_decay=0.99),
        replay=replace(_TUTORIAL_REPLAY, capacity=30_000),
        learner=_TUTORIAL_LEARNER,
        eval=EvalConfig(epsilon=0.02, noop_max=0, interval_s=600.0),
        max_episodes=10_000,
        print_episodes=True,
    ),
    # For speed beside other libraries (`benchmarks/peers.py`): the tutorials' network, task and step size with their
    # batches of 32, but Stable-Baselines3's and Atari's 8 samples per transition; everything else as by default.
    "peers": Config(
        env=EnvConfig(noop_max=0, show_buttons=False),
        agent=_TUTORIAL_AGENT,
        actors=ActorsConfig(
            epsilon=0.4,
            epsilon_alpha=7.0,
            exploration_zeta=0.0,
            saved_starts=0.0,
            practice_steps=None,
            practice_opening=0,
        ),
        replay=ReplayConfig(capacity=20_000, min_size=1_000, samples_per_insert=8.0),
        learner=LearnerConfig(
            batch_size=32, learning_rate=2.5e-4, learning_rate_final=None, average_decay=0.0, huber_delta=10.0
        ),
        eval=EvalConfig(enabled=False),
    ),
    # The article's 3x3 grid: no ROM, and the quickest check of the whole system. One-step targets on a grid without
    # chance have the optimal Q-values as their fixed point, however much is explored: it is reached to two digits.
    "gridworld": Config(
        env=EnvConfig(name="gridworld", show_buttons=False),
        agent=AgentConfig(
            gamma=0.9,
            n_step=1,
            watkins=False,
            munchausen=0.0,
            target_epsilon=0.0,
            target_epsilon_late=None,
            tree_backup=False,
            quantiles=1,
            layer_norm=False,
            flag_reward=0.0,
            death_reward=0.0,
            reward_scale=1.0,
        ),
        actors=ActorsConfig(
            count=2,
            envs_per_actor=4,
            precision="float32",
            epsilon=0.8,
            epsilon_alpha=3.0,
            exploration_zeta=0.0,
            saved_starts=0.0,
            practice_steps=None,
            practice_opening=0,
            chunk_length=16,
            weights_poll_s=0.1,
        ),
        replay=ReplayConfig(shards=2, capacity=10_000, min_size=500, samples_per_insert=4.0),
        learner=LearnerConfig(
            batch_size=32,
            learning_rate=3e-3,
            learning_rate_final=None,
            average_decay=0.0,
            adam_epsilon=1.5e-4,
            huber_delta=1.0,
            max_grad_norm=10.0,
            target_update_period=50,
            broadcast_period=10,
            device="cpu",
            precision="float32",
            threads=1,
        ),
        eval=EvalConfig(interval_s=1.5, episodes=32, max_episodes=32, epsilon=0.0, max_steps=20),
        ray=RayConfig(object_store_mb=100),
        max_updates=1_500,
    ),
}
