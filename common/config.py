"""Settings: one frozen dataclass per role, one documented line and unit per field.

Each number has its one owner here. Presets (`common.presets`), a YAML file and command-line options change
them in that order; `docs/configuration.md` is generated from this file.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EnvConfig:
    """The environment that actors and evaluator play."""

    name: Literal["mario", "gridworld", "synthetic"] = "mario"
    """Environment: Super Mario Bros.; a 3x3 grid that needs no ROM and learns in seconds; or, to measure the system
    around it, recorded frames of the first stage at a fixed cost per step, from which nothing can be learned."""
    stages: tuple[str, ...] = ("1-1",)
    """Stages "1-1" to "8-4", or "all" of these; one of them is drawn for each episode, the more often the more it is
    failed. Or "game": from 1-1 with three lives to game over."""
    actions: Literal["right_only", "simple", "complex"] = "right_only"
    """Action set of gym-super-mario-bros: RIGHT_ONLY (5), SIMPLE_MOVEMENT (7) or COMPLEX_MOVEMENT (12 actions)."""
    core: Literal["auto", "fceumm", "nes-py"] = "auto"
    """Emulator core; "auto" takes the faster one, FCEUmm, where the group `fast` is installed."""
    frame_skip: int = 4
    """Raw frames that each action is held for."""
    frame_stack: int = 4
    """Frames in a state."""
    noop_max: int = 30
    """Each episode starts with 0 to this many raw frames without a button pressed, drawn evenly."""
    sticky_actions: float = 0.0
    """Probability, at each raw frame, that the previous frame's buttons stay pressed (Machado et al., 2018)."""
    show_buttons: bool = True
    """Whether frames show the buttons that are held, in their upper left corner: Mario jumps again only once A was let
    go, which his picture does not show (compare the last action as an input in R2D2, Kapturowski et al., 2019)."""
    max_steps: int | None = None
    """Agent steps after which an episode is truncated; unlimited if not given (the game's clock ends it), in
    the synthetic environment 400."""
    step_ms: float = 5.0
    """Synthetic environment only: milliseconds that each step sleeps."""


@dataclass(frozen=True)
class AgentConfig:
    """What actors and learner must agree on."""

    gamma: float = 0.97
    """Discount per agent step."""
    n_step: int = 5
    """Rewards summed before bootstrapping."""
    watkins: bool = True
    """Whether n-step windows end before an exploratory action, as traces do in Watkins's Q(lambda) (Sutton & Barto,
    2018, section 12.10)."""
    double: bool = True
    """Double DQN (van Hasselt et al., 2016) where `munchausen` is 0; off: DQN's maximum over the target network."""
    munchausen: float = 0.9
    """Alpha of Munchausen DQN's targets (Vieillard et al., 2020), which take the place of (double) DQN's; the paper's
    is 0.9; 0: off."""
    munchausen_temperature: float = 0.03
    """Temperature of the policy in them, in units of scaled reward."""
    target_epsilon: float = 0.1
    """Random actions per step of the policy whose value the targets are, as in Expected Sarsa (van Seijen et al.,
    2009), so that it learns to keep away from places where one such action is fatal; 0: the greedy policy."""
    target_epsilon_late: float | None = None
    """What `target_epsilon` becomes late in the run, for where much of it slows learning down while the way is not
    known; it stays if not given."""
    target_epsilon_late_update: int | None = None
    """Updates before `target_epsilon_late` takes the place of `target_epsilon`; none: four tenths of the run, by the
    limit that is nearest."""
    tree_backup: bool = True
    """Whether n-step returns count `target_epsilon` at every state within them, by the actor's own Q-values, as Tree
    Backup does (Precup et al., 2000); else they count it at their last state, as often as there are steps."""
    dueling: bool = False
    """Dueling value and advantage streams (Wang et al., 2016)."""
    network: Literal["nature", "nips"] = "nips"
    """Convolutions and hidden layer: of Mnih et al., 2015, or those of 2013, with a third of the arithmetic."""
    layer_norm: bool = True
    """Layer normalisation (Ba et al., 2016) before every ReLU of an image network, as in PQN (Gallici et al., 2025)."""
    quantiles: int = 32
    """Quantiles of each action's distribution of returns (QR-DQN, Dabney et al., 2018; 32 to 200 are usual), by the
    quantile Huber loss with kappa = `learner.huber_delta`; 1: Q-values."""
    flag_reward: float = 75.0
    """Added to the reward of the step that clears a stage, before scaling; logged returns are without it."""
    death_reward: float = 0.0
    """Added to the reward of the step in which an episode ends without a clear, before scaling; negative makes careful;
    logged returns are without it."""
    reward_scale: float = 1 / 15
    """Factor on the environment's rewards before learning; logged returns stay unscaled."""


@dataclass(frozen=True)
class ActorsConfig:
    """The Ray actor processes that play."""

    count: int | Literal["auto"] = "auto"
    """Actor processes; "auto" fills the cores that the learner leaves, and both of a machine with two."""
    envs_per_actor: int = 8
    """Environments that one actor steps together, with one batched forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of all layers but the last; "auto" takes bfloat16 where the processor computes in it."""
    exploration: Literal["ladder", "schedule"] = "ladder"
    """Epsilon per environment by Ape-X's ladder, or one decaying schedule for all."""
    epsilon: float = 0.2
    """Ladder: environment i of N explores with epsilon ** (1 + epsilon_alpha * i / (N - 1))."""
    epsilon_alpha: float = 1.5
    """Ladder: its exponent."""
    epsilon_start: float = 1.0
    """Schedule: epsilon before the first update."""
    epsilon_final: float = 0.02
    """Schedule: the floor."""
    epsilon_decay: float = 0.9999
    """Schedule: factor per learner update."""
    exploration_zeta: float = 2.0
    """Exploratory actions are held for n steps with a probability proportional to n ** -exploration_zeta, 16 at most
    (temporally extended epsilon-greedy exploration, Dabney et al., 2021, has 2); 0: one step each."""
    saved_starts: float | Literal["auto"] = "auto"
    """Share of episodes that begin within a stage, at states saved along it and before deaths (compare Salimans &
    Chen, 2018); "auto": 0.75 on an emulator core that has saved states (FCEUmm), else 0."""
    saved_start_heights: bool = False
    """Whether the parts of a stage along which these episodes begin, 64 pixels each, are told apart by height too: so
    that a way above or below the usual one is practised as often, though it is hardly ever taken (Go-Explore's cells,
    Ecoffet et al., 2021)."""
    practice_steps: int | None = 64
    """Agent steps after which an episode that began within a stage is truncated, so that more of them pass the places
    they are meant for; none: they play on."""
    practice_opening: int = 12
    """Episodes that began within a stage open with one action, drawn evenly, for 0 to so many agent steps, drawn evenly
    (exploring starts, Sutton & Barto, 2018, section 5.3, with held actions): what else might be done there is tried
    far more often than exploration by epsilon tries it; 0: they do not."""
    chunk_length: int = 80
    """Transitions per chunk that an actor pushes; fewer where an episode ends."""
    max_inserts_in_flight: int = 4
    """Insert calls that an actor may have unanswered before it stops playing."""
    weights_poll_s: float = 1.0
    """Seconds between an actor's requests for newer weights; 0: before every step, waiting for the answer."""


@dataclass(frozen=True)
class ReplayConfig:
    """The sharded replay buffer."""

    shards: int = 1
    """Replay processes; one serves some 360 actors, several share its memory and its loss."""
    capacity: int = 100_000
    """Transitions over all shards; the oldest go first."""
    priority_exponent: float = 0.6
    """Alpha of prioritized replay (Schaul et al., 2016); 0 samples uniformly."""
    importance_exponent: float = 0.4
    """Beta of the importance weights; 1 corrects fully."""
    min_size: int = 5_000
    """Transitions over all shards before sampling begins."""
    samples_per_insert: float = 4.0
    """Times that each transition is sampled on average; the rate limiter holds actors or learner to it."""
    error_buffer: float | None = None
    """Samples per shard by which the ratio may run ahead or behind; if not given, a tenth of the
    samples that `min_size` transitions stand for, and twice the smallest safe value at least."""


@dataclass(frozen=True)
class LearnerConfig:
    """The learner."""

    batch_size: int = 64
    """Transitions per update."""
    learning_rate: float = 2.5e-4
    """Adam's step size."""
    learning_rate_final: float | None = 1e-5
    """Step size that it decays to, linearly; constant if not given."""
    learning_rate_decay_updates: int | None = None
    """Updates until the step size is at its final value; if not given, it is there after nine tenths of the run, by the
    limit that is nearest."""
    adam_epsilon: float = 1e-6
    """Adam's denominator offset."""
    huber_delta: float = 1.0
    """Absolute TD error at which the loss turns from quadratic to linear; where most errors are above it, Q-values tend
    to medians, to which a death that comes less often than not is nothing."""
    max_grad_norm: float | None = 40.0
    """Global gradient norm above which gradients are scaled down; none: no clipping."""
    random_shift: int = 0
    """Pixels by which each state's picture is moved at most, up, down and aside, before it is trained on (DrQ,
    Kostrikov et al., 2021, has 4); 0: off."""
    average_decay: float = 0.999
    """Decay per update of a moving average of the weights (Polyak & Juditsky, 1992), which evaluations then play and
    policy files hold; actors and targets have the online network's; 0: off."""
    target_update_period: int = 250
    """Updates between copies of the online network into the target network."""
    broadcast_period: int = 25
    """Updates between weight broadcasts to the actors."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner computes: "auto" is CUDA if there is a GPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of all layers but the last; "auto" takes bfloat16 where the processor has it."""
    threads: int | Literal["auto"] = "auto"
    """CPU threads of the learner; "auto": 1, or a quarter of the cores where that is more and no GPU is used."""
    prefetch: int = 3
    """Batches on their way from the shards; up to two more lie ready to be trained on, none if this is 1."""


@dataclass(frozen=True)
class EvalConfig:
    """The evaluator beside training."""

    enabled: bool = True
    """Whether the run has an evaluator."""
    interval_s: float = 200.0
    """Seconds from the start of one evaluation to the start of the next, for each stage that is evaluated: with four
    stages four times as many."""
    episodes: int = 16
    """Episodes per stage and evaluation."""
    max_episodes: int = 64
    """Episodes per stage up to which an evaluation goes on for as long as its policy may be the best so far."""
    epsilon: float = 0.01
    """Exploration of the evaluated policy."""
    noop_max: int = 30
    """Random no-op start, raw frames."""
    stages: tuple[str, ...] = ()
    """Stages to evaluate; those of training if empty."""
    max_steps: int | None = None
    """Agent steps after which an evaluation episode is truncated; if not given, 2,000, in the gridworld 100, and no
    limit in the whole game."""
    video: bool = True
    """Whether each evaluation's best episode goes to TensorBoard as an animation."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints."""

    interval_s: float | None = 300.0
    """Seconds between checkpoints."""
    interval_updates: int | None = None
    """Updates between checkpoints, beside the time."""
    keep: int = 3
    """Newest checkpoints kept."""
    replay: bool = True
    """Whether checkpoints hold the replay's contents, about a kilobyte a transition, and a resumed run takes them;
    without them its replay fills anew before the learner goes on."""
    uri: str | None = None
    """Where each finished checkpoint is mirrored, with the run's other files, so that `--resume URI` goes on with it on
    another machine: a folder (file:///mnt/shared/mario) or object storage (s3://bucket/mario, which needs the group
    `storage`), for this run alone."""


@dataclass(frozen=True)
class RayConfig:
    """The Ray cluster that carries the roles."""

    address: str | None = None
    """Cluster to join; else RAY_ADDRESS, else the one that `ray start` made here, else a private local Ray."""
    object_store_mb: int = 512
    """Object store of the private local Ray, megabytes."""
    hang_s: float = 60.0
    """Seconds without an answer after which a process that had answered before counts as dead; the evaluator, which
    also draws animations, after five times as long."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    seed: int = 0
    """Seed of the run; every role and environment gets its own from it."""
    total_env_steps: int | None = None
    """End after so many agent steps over all actors."""
    max_episodes: int | None = None
    """End once so many training episodes are finished; those that end within the next second still count."""
    max_updates: int | None = None
    """End after so many learner updates."""
    max_minutes: float | None = None
    """End after so many minutes, the processes' start included; 30 if no limit at all is given."""
    print_episodes: bool = False
    """Print a line with the total reward of each training episode."""
