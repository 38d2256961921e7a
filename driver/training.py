"""One training session, from its processes' start to its end."""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError

from actors.remote import ActorReport, EvaluationReport
from common.config import Config
from common.errors import UserError, first_line
from common.types import ShardStats
from driver.abandoned import end_abandoned
from driver.actor_states import read_actor_states
from driver.checkpoints import CheckpointWriter, Start
from driver.cluster import Cluster
from driver.counters import ShardTotals
from driver.demand import Demand
from driver.display import Display, Status, clock
from driver.elastic import ElasticActors
from driver.episode_log import EpisodeLog
from driver.evaluations import BestPolicy, describe, describe_briefly, evaluation_interval_s, protocol_options
from driver.failures import RunFailedError
from driver.final_calls import final_evaluation, final_shard_stats, learner_state
from driver.head_watch import head_watch
from driver.introduction import introduction
from driver.limits import Limits
from driver.metrics import Metrics, evaluation_lines, evaluation_scalars, progress_line, window_scalars
from driver.mirror import Mirror
from driver.nodes import ray_parts
from driver.options import LaunchOptions, dump_config
from driver.placement import Placement
from driver.plan import Plan, transition_bytes
from driver.ray_session import Session
from driver.recovery import Recovery
from driver.replay_files import restore_replay
from driver.roles import Roles
from driver.run_directory import RunDirectory
from driver.saving import Saving
from driver.slots import Listener
from driver.stop import StopSignals
from driver.supervisor import Supervisor
from driver.window import Window
from learner.checkpoint import newest_checkpoint
from learner.remote import LearnerReport

_log = logging.getLogger("apex-mario")

_TICK_S = 5.0  # between lines of progress
_REDRAW_S = 0.5
_POLL_S = 0.25
_STOP_TIMEOUT_S = 60.0
_SALVAGE_TIMEOUT_S = 10.0
_FINAL_EVALUATION_S = 180.0
_STATS_TIMEOUT_S = 5.0


class Training:
    """The state of one session."""

    def __init__(
        self,
        options: LaunchOptions,
        plan: Plan,
        begin: Start,
        limits: Limits,
        display: Display,
        mirror: Mirror | None,
        cluster: Cluster | None,
    ) -> None:
        counters = begin.counters
        self._begin = begin
        self._options = options
        self._config: Config = options.config
        self._run_dir: RunDirectory = options.run
        self._plan = plan
        self._counters = counters
        self._limits = limits
        self._display = display
        self._cluster = cluster
        self._recovery = Recovery(
            self._run_dir.checkpoints,
            self._config.replay.shards,
            self._config.checkpoint.replay,
            self._event,
            self._has_checkpoint,
        )
        roles = Roles(self._config, plan, Placement() if cluster is None else cluster.placement)
        self._supervisor = Supervisor(
            roles,
            limits,
            counters,
            Listener(self._actor, self._learner, self._shard, self._evaluation, self._replaced, self._event),
            self._recovery,
        )
        self._elastic: ElasticActors | None = None
        self._totals = ShardTotals(counters)
        self._best = BestPolicy(self._config, roles.spec, self._run_dir, begin.best)
        self._saving = Saving(
            self._config.checkpoint,
            CheckpointWriter(self._run_dir, self._config, roles.spec),
            self._supervisor,
            counters,
            self._best,
            mirror,
            self._event,
        )
        self._window = Window()
        self._status = Status(
            replay_capacity=self._config.replay.capacity, actors=plan.actors, actors_wanted=plan.actors
        )
        self._started = time.monotonic()
        self._ended: float | None = None  # when the run's limit or signal came
        self._time_before = counters.time_s
        self._last_tick = self._started
        self._evaluation_interval_s = evaluation_interval_s(self._config)
        self._next_evaluation = self._started + self._evaluation_interval_s
        self._evaluated = counters.updates  # when an evaluation last began
        self._metrics = Metrics(self._run_dir, warn=self._event)
        self._episode_log = EpisodeLog(self._run_dir.episodes_path, episodes=counters.episodes, warn=self._event)
        self._watch = contextlib.ExitStack()

    def introduce(self, session: Session) -> None:
        """Says what was found and what will be done."""
        config, plan, say = self._config, self._plan, self._event
        for line in introduction(config, plan, session, self._cluster):
            say(line)
        say(f"run directory {self._run_dir.path}")
        say(f"watch it with: tensorboard --host localhost --logdir {self._run_dir.path}")
        for remark in self._begin.remarks:
            say(remark)
        if self._begin.data is not None:
            say(f"resuming from {self._begin.data.path.name}: {self._counters.env_steps:,} env steps")
        elif self._counters.sessions:
            say("resuming a run that has no checkpoint yet: starting from its beginning")
        if self._cluster is not None:
            _, placement, code, _ = self._cluster
            self._elastic = ElasticActors(config.actors.count, placement, code, Demand().ask, self._supervisor, say)
        each = transition_bytes(config, Roles(config, plan).spec)
        _log.info("replay capacity %d, at most %d bytes each", config.replay.capacity, each)
        text = "".join(f"    {line}\n" for line in dump_config(config).splitlines())
        self._metrics.text("config", text, self._counters.env_steps)

    def run(self, signals: StopSignals, session: Session) -> int:
        """Runs to the end; returns the exit status."""
        with self._watch:
            gone = functools.partial(self._head_gone, session)
            self._watch.enter_context(head_watch(ray_parts(), gone))
            try:
                return self._run(signals)
            finally:
                if signals.exit_status is not None:
                    self._watch.close()  # it would take what ends now for an accident
                    self._leave(session, signals.exit_status)

    def _head_gone(self, session: Session, name: str) -> None:
        """Ends the program at once: whatever waits for Ray now waits in vain, until Ray ends it without a word."""
        self._event(f"launch.py: error: {name} is gone, and with it what the processes did since the last checkpoint")
        again = "" if self._cluster is None else "start the cluster again (`ray up` or `ray start`), and "
        self._event(f"{again}go on with: python launch.py --resume {self._run_dir.path}")
        self._leave(session, 1)

    def _leave(self, session: Session, status: int) -> None:
        """Ends the program without waiting for Ray or for a thread, as the one that writes a checkpoint.

        Python's own end would wait for that one, which may be minutes on a slow disk; and where Ray is shut down under
        it, its next question would start another Ray.
        """
        self._display.restore()
        if session.folder is not None:
            end_abandoned(session.folder)
        os._exit(status)

    def _run(self, signals: StopSignals) -> int:
        data = self._begin.data
        try:
            actors = {} if data is None else read_actor_states(data.extra)
            self._supervisor.start(None if data is None else data.learner, self._fill, actors)
            ending = self._loop(signals)
            return self._finish(ending, signals)
        except RunFailedError as failure:
            self._event(f"launch.py: error: {failure}")
            self._save_what_is_left(signals)
            return 1
        except RayError as error:  # of a question to Ray itself, which no role's death explains
            self._event(f"launch.py: error: Ray does not answer any more: {first_line(error)}")
            self._save_what_is_left(signals)
            return 1
        except OSError as error:
            self._event(f"launch.py: error: the run cannot be written: {error}; make room and resume it")
            return 1
        finally:
            self._finish_files()
            if signals.exit_status is None:
                self._supervisor.close()
                self._saving.close()

    def _fill(self, shards: Sequence[Any]) -> None:
        """Gives empty shards what the checkpoint has for them."""
        if self._begin.data is not None:
            try:
                reason = restore_replay(shards, self._recovery.replay_of(self._begin.data))
            except (UserError, OSError) as error:
                reason = str(error)
            self._event("the replay goes on as it was" if reason is None else f"the replay fills anew: {reason}")

    def _loop(self, signals: StopSignals) -> str:
        next_redraw = 0.0
        while True:
            self._supervisor.poll(_POLL_S)
            now = time.monotonic()
            self._counters.time_s = self._running_s(now)
            ending = signals.received or self._limits.reached(self._counters)
            if ending is not None:
                return ending
            if self._elastic is not None:
                self._elastic.follow(now)
            if now - self._last_tick >= _TICK_S:
                self._tick()
            if now >= next_redraw:
                next_redraw = now + _REDRAW_S
                self._redraw()
            if now >= self._next_evaluation and not self._supervisor.evaluating and self._has_learned():
                self._next_evaluation = now + self._evaluation_interval_s
                self._evaluated = self._counters.updates
                self._supervisor.evaluate(self._best.clear_rate)
            self._saving.begin_if_due(now)

    def _running_s(self, now: float) -> float:
        """Seconds of running, those of earlier sessions included."""
        return self._time_before + now - self._started

    def _has_learned(self) -> bool:
        """Whether the policy is another one than at the last evaluation; a new learner may have fewer updates."""
        return self._counters.updates != self._evaluated

    def _has_checkpoint(self) -> bool:
        """Whether the session loaded or wrote one, so that there must be some."""
        return self._begin.data is not None or self._saving.wrote_any

    def _finish_files(self) -> None:
        """The last line of progress; whatever cannot be written any more was said before."""
        self._episode_log.close()
        self._tick()
        self._redraw()

    def _save_what_is_left(self, signals: StopSignals) -> None:
        """After a failure: a checkpoint of the learner if that is still there, and how to go on."""
        self._saving.wait()
        with contextlib.suppress(RunFailedError):
            self._saving.save(learner_state(self._supervisor, _SALVAGE_TIMEOUT_S))
        self._finish_mirror(signals)
        try:
            newest = newest_checkpoint(self._run_dir.checkpoints)
        except UserError as error:
            self._event(f"launch.py: error: {error}")
            return
        if newest is None and self._has_checkpoint():
            self._event(f"once the checkpoints are back, go on with: python launch.py --resume {self._run_dir.path}")
        elif newest is None:
            self._event("there is no checkpoint yet: nothing to go on from")
        else:
            self._event(f"go on from the last checkpoint with: python launch.py --resume {self._run_dir.path}")

    def _finish(self, ending: str, signals: StopSignals) -> int:
        self._event(f"{ending}: stopping …")
        self._ended = time.monotonic()
        self._supervisor.stop(_STOP_TIMEOUT_S)
        state = learner_state(self._supervisor, _STOP_TIMEOUT_S)
        final_shard_stats(self._supervisor, _STATS_TIMEOUT_S)
        saved = self._saving.save(state)
        if signals.received is None:
            best = self._best.score
            final_evaluation(
                self._supervisor, self._best.clear_rate, _FINAL_EVALUATION_S, lambda: signals.received is not None
            )
            if self._best.score != best:
                saved = self._saving.save(state)
        mirrored = self._finish_mirror(signals)
        counters = self._counters
        self._event(
            f"{counters.env_steps:,} env steps, {counters.episodes:,} episodes, {counters.updates:,} updates "
            f"in {clock(counters.time_s)}; samples per insert {counters.samples_per_insert():.2f}"
        )
        self._event(f"evaluate it with: python evaluate.py {self._run_dir.path}{protocol_options(self._config.eval)}")
        more = self._limits.raised(counters)
        self._event(f"go on with it:    python launch.py --resume {self._run_dir.path}{' ' if more else ''}{more}")
        if mirrored is not None:
            self._event(f"or elsewhere:     python launch.py --resume {mirrored}{' ' if more else ''}{more}")
        return 0 if saved else 1

    def _finish_mirror(self, signals: StopSignals) -> str | None:
        """Waits for the last checkpoint's copy; where copies are, if there are any."""
        self._watch.close()  # Ray is not needed for it
        before = signals.received
        return self._saving.finish(lambda: signals.received != before)

    def _actor(self, report: ActorReport) -> None:
        self._window.take_actor(report)
        self._status.take(report.episodes)
        self._episode_log.take_episodes(report.episodes)
        self._counters.env_steps += report.env_steps
        for episode in report.episodes:
            self._counters.episodes += 1
            if self._config.print_episodes:
                self._event(f"total reward after episode {self._counters.episodes} is {episode.episode_return:g}")

    def _learner(self, report: LearnerReport) -> None:
        self._window.take_learner(report)
        self._episode_log.take_losses(report.total_updates, report.losses)
        self._counters.updates = report.total_updates
        self._counters.samples += report.samples
        self._counters.weight_version = report.version

    def _shard(self, index: int, stats: ShardStats) -> None:
        before = self._totals.damaged_chunks
        self._totals.take(index, stats, self._counters)
        if (damaged := self._totals.damaged_chunks - before) > 0:
            self._event(f"warning: damaged chunks of transitions that replay shard {index} left out: {damaged}")

    def _replaced(self, kind: str, index: int) -> None:
        if kind == "replay shard":
            self._totals.replaced(index)
        elif kind == "learner":
            self._saving.learner_replaced()

    def _evaluation(self, report: EvaluationReport) -> None:
        step, time_s = self._counters.env_steps, self._running_s(time.monotonic())
        best = self._keep_if_best(report)
        self._metrics.scalars(evaluation_scalars(report.episodes), step)
        self._metrics.scalars({"eval/seconds": report.seconds}, step)
        self._metrics.evaluations(evaluation_lines(report, self._counters, time_s, best))
        if report.gif is not None:
            self._metrics.animation("eval/episode", report.gif, report.gif_shape, step)
        self._status.evaluation = describe_briefly(report)
        self._event(
            f"{clock(time_s)}  evaluation after {step:,} env steps: {describe(report)}{' -> best.pt' if best else ''}"
        )

    def _keep_if_best(self, report: EvaluationReport) -> bool:
        try:
            return self._best.consider(report, self._counters)
        except OSError as error:
            path = self._run_dir.best_policy
            self._event(f"warning: {path} could not be written ({error.strerror}); the one before is whole")
            return False

    def _event(self, message: str) -> None:
        _log.info(message)
        self._display.say(message)

    def _tick(self) -> None:
        """A line of progress and a point on every curve."""
        now = self._ended or time.monotonic()
        self._counters.time_s = self._running_s(now)
        self._window.seconds = now - self._last_tick
        self._last_tick = now
        step = self._counters.env_steps
        self._metrics.scalars(window_scalars(self._window, self._counters, self._totals), step)
        self._metrics.progress(progress_line(self._window, self._counters, self._totals, self._supervisor.actors_alive))
        self._status.env_steps_per_s = self._window.per_second(self._window.env_steps)
        self._status.updates_per_s = self._window.per_second(self._window.updates)
        self._status.wait_fraction = self._window.wait_fraction
        self._window = Window()

    def _redraw(self) -> None:
        status, counters = self._status, self._counters
        status.time_s, status.env_steps, status.updates = counters.time_s, counters.env_steps, counters.updates
        status.episodes = counters.episodes
        status.replay_size = self._totals.size
        status.samples_per_insert = counters.samples_per_insert()
        status.epsilon_low, status.epsilon_high = self._supervisor.epsilons
        status.fraction = self._limits.fraction(counters)
        status.actors, status.actors_wanted = self._supervisor.actors_alive, self._supervisor.actors_wanted
        self._display.update(status)
