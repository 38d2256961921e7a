"""Builds an actor from its settings: the same way in a Ray process and in a serial run."""

from dataclasses import asdict

import numpy as np
import torch

from actors.actor import (
    Actor,
    Durations,
    Exploration,
    LadderExploration,
    ReplayWriter,
    ScheduleExploration,
    WeightSource,
)
from actors.chunks import ChunkBuilder
from actors.environment import environment_spec, make_environment
from actors.gridworld import STAGE as GRID
from actors.saved_starts import SavedStarts, resolve_saved_starts
from actors.slot import Slot
from actors.stages import StageSampler
from common.config import ActorsConfig, AgentConfig, EnvConfig
from common.networks import build_network
from common.precision import uses_bfloat16
from common.schedules import ladder_epsilon
from common.seeding import role_seed, to_int


def build_exploration(actors: ActorsConfig, *, index: int, count: int) -> Exploration:
    """The exploration of actor `index` of `count`.

    The ladder runs over all environments of all actors, as if each were an Ape-X actor of its own: it then
    covers its whole range also where one process plays them all.
    """
    envs = actors.envs_per_actor
    if actors.exploration == "schedule":
        return ScheduleExploration(actors.epsilon_start, actors.epsilon_final, actors.epsilon_decay, envs)
    return LadderExploration(
        tuple(ladder_epsilon(index * envs + i, count * envs, actors.epsilon, actors.epsilon_alpha) for i in range(envs))
    )


def build_actor(
    *,
    env: EnvConfig,
    agent: AgentConfig,
    actors: ActorsConfig,
    index: int,
    count: int,
    seed: int,
    incarnation: int,
    writer: ReplayWriter,
    weights: WeightSource,
) -> Actor:
    """Actor `index` of `count`, its environments reset.

    Args:
        seed: the run's seed.
        incarnation: how many times this index was replaced; each has numbers of its own.
        writer: takes the chunks.
        weights: gives the weights; until its first, the network is as it was initialised.
    """
    spec = environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)
    seeds = role_seed(seed, "actor", index, incarnation).spawn(3 + actors.envs_per_actor)
    actor_seed, *slot_seeds, starts_seed, stages_seed = seeds
    share = resolve_saved_starts(actors.saved_starts, env)
    starts_rng = np.random.default_rng(starts_seed)
    return Actor(
        slots=[
            Slot(
                make_environment(**asdict(env)),
                _chunk_builder(agent, actors, spec.frame_stack, index),
                np.random.default_rng(slot_seed),
                flag_reward=agent.flag_reward,
                death_reward=agent.death_reward,
                trail=share > 0,
                practice_steps=actors.practice_steps,
            )
            for slot_seed in slot_seeds
        ],
        network=build_network(
            spec, agent.dueling, to_int(role_seed(seed, "network")), agent.network, agent.layer_norm, agent.quantiles
        ),
        bfloat16=uses_bfloat16(actors.precision, torch.device("cpu")),
        spec=spec,
        exploration=build_exploration(actors, index=index, count=count),
        durations=Durations(actors.exploration_zeta) if actors.exploration_zeta else None,
        practice_opening=actors.practice_opening,
        backup_epsilon=agent.target_epsilon if agent.tree_backup else 0.0,
        writer=writer,
        weights=weights,
        seed=actor_seed,
        index=index,
        stages=StageSampler((GRID,) if env.name == "gridworld" else env.stages, np.random.default_rng(stages_seed)),
        saved_starts=SavedStarts(share, starts_rng, actors.saved_start_heights) if share > 0 else None,
    )


def _chunk_builder(agent: AgentConfig, actors: ActorsConfig, frame_stack: int, index: int) -> ChunkBuilder:
    return ChunkBuilder(
        n_step=agent.n_step,
        gamma=agent.gamma,
        reward_scale=agent.reward_scale,
        frame_stack=frame_stack,
        chunk_length=actors.chunk_length,
        actor=index,
        watkins=agent.watkins,
    )
