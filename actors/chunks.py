"""From one environment's steps to the self-contained chunks that travel to the replay."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.n_step import Ending, NStepAccumulator, Window
from common.compression import compress_frames
from common.types import Chunk


@dataclass(frozen=True)
class _Step:
    """A state that was acted in."""

    action: int
    q_tm1: float  # Q-value of the chosen action
    weight_version: int


class ChunkBuilder:
    """Collects one environment's episode and cuts it into chunks.

    Per agent step the owner calls `bootstrap` with the largest Q-value of the current state, then `add`
    with what came of the action. The bootstrap value arrives one call later than the reward because it
    comes from the forward pass that chooses the next action: no state is evaluated twice.
    """

    def __init__(
        self,
        *,
        n_step: int,
        gamma: float,
        reward_scale: float,
        frame_stack: int,
        chunk_length: int,
        actor: int,
        watkins: bool = False,
    ) -> None:
        """
        Args:
            n_step: rewards in a full window.
            gamma: discount per step.
            reward_scale: factor on the rewards.
            frame_stack: S, frames in a state.
            chunk_length: transitions in a full chunk.
            actor: index written into the chunks.
            watkins: whether windows end before an exploratory action, as traces do in Watkins's Q(lambda).

        Raises:
            ValueError: chunk_length or frame_stack < 1, and as NStepAccumulator does.
        """
        if chunk_length < 1 or frame_stack < 1:
            raise ValueError(f"chunk_length and frame_stack must be at least 1, not {chunk_length}, {frame_stack}")
        self._accumulator = NStepAccumulator(n_step, gamma)
        self._reward_scale = reward_scale
        self._context = frame_stack - 1  # earlier frames that a chunk needs for its first state
        self._chunk_length = chunk_length
        self._actor = actor
        self._watkins = watkins
        self.clear()

    def clear(self) -> None:
        """Forgets the running episode."""
        self._accumulator.reset()
        # From self._first_frame of the episode on. Copies, because a view would keep a whole state alive.
        self._frames: list[NDArray[np.uint8]] = []
        self._first_frame = 0
        self._steps: list[_Step] = []  # from self._first_step on
        self._first_step = 0
        self._newest_value = 0.0  # max_a Q of the newest state
        self._unvalued: list[Window] = []  # finished windows that wait for the bootstrap value
        self._windows: list[tuple[Window, float]] = []  # with their priority

    def begin(self, frames: NDArray[np.uint8]) -> None:
        """Starts an episode; the previous one must have been ended.

        Args:
            frames: [k, *F], those of the first state that are no padding, oldest first: one at the start of a stage.
        """
        if self._windows or self._unvalued:
            raise RuntimeError("an episode was begun before the last one's chunks were taken")
        self.clear()
        self._frames.extend(frame.copy() for frame in frames)
        self._first_frame = 1 - len(frames)

    def bootstrap(self, value: float) -> Chunk | None:
        """Takes max_a Q of the newest state; returns a chunk if one is full.

        Windows that end in this state get their initial priority, the absolute TD error.
        """
        self._newest_value = value
        self._value(value)
        if len(self._windows) >= self._chunk_length:
            return self._cut()
        return None

    def add(
        self,
        *,
        action: int,
        q_tm1: float,
        weight_version: int,
        reward: float,
        frame: NDArray[np.uint8],
        ending: Ending | None,
        explores: bool = False,
        epsilon: float = 0.0,
        mean_value: float = 0.0,
    ) -> None:
        """Takes one step: the action in the newest state, the environment's reward and the next frame.

        Args:
            action: index of the action.
            q_tm1: its Q-value.
            weight_version: of the weights behind it.
            reward: the environment's.
            frame: [*F], the next state's newest.
            ending: whether and how the episode ends with this step.
            explores: whether the action is another than the greedy one.
            epsilon, mean_value: see `NStepAccumulator.add`.
        """
        if explores and self._watkins:
            self._unvalued.extend(self._accumulator.cut())
            self._value(self._newest_value)
        self._steps.append(_Step(action, q_tm1, weight_version))
        self._frames.append(frame.copy())
        self._unvalued.extend(
            self._accumulator.add(reward * self._reward_scale, ending, epsilon=epsilon, mean_value=mean_value)
        )

    def end(self, value: float) -> Chunk:
        """Closes the episode: the chunk of all that is left.

        Args:
            value: max_a Q of the final state; it counts only after a truncation, where it must come
                from a forward pass of its own.
        """
        self._value(value)
        return self._cut()

    def _value(self, value: float) -> None:
        for window in self._unvalued:
            q_tm1 = self._steps[window.start - self._first_step].q_tm1
            self._windows.append((window, abs(window.r_t + window.discount_t * value - q_tm1)))
        self._unvalued.clear()

    def _cut(self) -> Chunk:
        windows = [window for window, _ in self._windows]
        start, last = windows[0].start, windows[-1]
        steps = self._steps[start - self._first_step :][: len(windows)]
        end_frame = max(window.start + window.steps for window in windows) + 1
        frames, block_ends = compress_frames(self._frames[: end_frame - self._first_frame])
        unsealed = Chunk(
            frames=frames,
            block_ends=block_ends,
            first_state=start - self._first_frame,
            a_tm1=np.array([step.action for step in steps], np.int32),
            r_t=np.array([window.r_t for window in windows], np.float32),
            discount_t=np.array([window.discount_t for window in windows], np.float32),
            steps=np.array([window.steps for window in windows], np.uint8),
            priority=np.array([priority for _, priority in self._windows], np.float32),
            weight_version=np.array([step.weight_version for step in steps], np.int32),
            actor=self._actor,
        )
        self._windows.clear()
        self._forget(last.start + 1)
        return unsealed.sealed()

    def _forget(self, next_start: int) -> None:
        """Drops the steps before `next_start`, and the frames that no later state needs."""
        del self._steps[: next_start - self._first_step]
        self._first_step = next_start
        first_frame = max(self._first_frame, next_start - self._context)
        del self._frames[: first_frame - self._first_frame]
        self._first_frame = first_frame
