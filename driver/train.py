"""From options to a run that goes on; what cannot be is refused before anything starts, as far as that is known."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from actors.environment import environment_spec
from common.config import Config
from common.errors import UserError
from common.types import EnvironmentSpec
from driver.checkpoints import Start, check_fits, read_start, return_to_chosen
from driver.cluster import look_around
from driver.display import Display
from driver.limits import Limits
from driver.memory import Part, learner_and_beside, room_for_replay, whole_machine
from driver.mirror_start import check_mirror, start_mirror
from driver.options import LaunchOptions, dump_config
from driver.plan import Plan, machine_cores, make_plan, transition_bytes
from driver.provenance import describe_origin
from driver.ray_session import Session, ray_session
from driver.stop import StopSignals
from driver.store import Store
from driver.training import Training
from replay.memory import available_memory, check_memory


def train(options: LaunchOptions, ray_address: str | None) -> int:
    """Trains until a limit, a signal or a failure; returns the program's exit status.

    Args:
        options: what to do.
        ray_address: the cluster to join, None for a private Ray.

    Raises:
        UserError: the run cannot be started as asked.
    """
    run = options.run
    if options.resume:
        run.check_idle()
    begin = read_start(run, options.checkpoint) if options.resume else Start()
    limits = Limits.of(options.config)
    reached = limits.reached(begin.counters)
    if options.resume and reached is not None:
        raise UserError(f"the run in {run.path} is complete: {reached}; raise that limit to go on with it")
    if begin.data is not None:
        check_fits(begin.data, options.config, _spec(options.config))
    begin.remarks.extend(options.remarks)
    store = _store(options, begin)
    # From here on, because an interrupt inside of Ray's start would crash it; and again after it.
    signals = StopSignals()
    signals.install()
    try:
        return _train(options, ray_address, signals, begin, limits, store)
    except SystemExit:
        if signals.exit_status is None:
            raise
        return signals.exit_status


def _train(
    options: LaunchOptions,
    ray_address: str | None,
    signals: StopSignals,
    begin: Start,
    limits: Limits,
    store: Store | None,
) -> int:
    config, run = options.config, options.run
    with Display() as display, _session(config, ray_address, display) as session:
        signals.install()
        if signals.received is not None:
            raise KeyboardInterrupt
        cluster = None if ray_address is None else look_around(config)
        if cluster is None:
            plan = make_plan(config, cpus=machine_cores(), gpus=session.size.gpus, private=True)
        else:
            plan = cluster.plan
            home = cluster.placement.home
            _check_room(config, learner_and_beside(config, plan, _spec(config)), home.memory_bytes if home else 0)
        if options.resume:
            begin.counters.sessions += 1
        else:
            run.create(dump_config(config), describe_origin(options.preset, options.arguments))
        with run.lock():
            _log_to(run.log_path)
            if options.checkpoint is not None:
                begin = return_to_chosen(run, options.checkpoint, begin)
            mirror = None if store is None else start_mirror(store, run, begin, config.checkpoint.keep)
            training = Training(options, plan, begin, limits, display, mirror, cluster)
            training.introduce(session)
            return training.run(signals, session)


def _session(config: Config, address: str | None, display: Display) -> AbstractContextManager[Session]:
    if address is not None:
        display.say(f"joining the Ray cluster at {address} …")
        return ray_session(address, private_cpus=0, object_store_mb=0)
    cores = machine_cores()
    plan = make_plan(config, cpus=cores, gpus=torch.cuda.device_count(), private=True)
    _check_memory_here(config, plan)
    display.say("starting Ray …")
    return ray_session(None, private_cpus=max(cores, plan.cpus), object_store_mb=config.ray.object_store_mb)


def _store(options: LaunchOptions, begin: Start) -> Store | None:
    """Where checkpoints are to be mirrored."""
    uri = options.config.checkpoint.uri
    if uri is None:
        return None
    take_back = options.checkpoint is not None or uri == options.fetched
    return check_mirror(uri, options.run, begin.step if options.resume else None, take_back=take_back)


def _check_memory_here(config: Config, plan: Plan) -> None:
    """Refuses what this machine cannot hold, before anything is started."""
    available = available_memory()
    store = config.ray.object_store_mb * 2**20
    if store > available // 2:
        raise UserError(
            f"--ray.object-store-mb {config.ray.object_store_mb} is more than half of the memory that is available, "
            f"{available / 2**30:.1f} GiB; a few hundred are ample"
        )
    _check_room(config, whole_machine(config, plan, _spec(config)), available)


def _check_room(config: Config, others: Sequence[Part], available_bytes: int) -> None:
    each = transition_bytes(config, _spec(config))
    check_memory(config.replay.capacity, each, room_for_replay(others, available_bytes))


def _spec(config: Config) -> EnvironmentSpec:
    env = config.env
    return environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)


def _log_to(path: Path) -> None:
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    logging.raiseExceptions = False  # a full disk is said on the terminal, and not by a traceback for each line
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("apex-mario").setLevel(logging.INFO)
