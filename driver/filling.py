"""New replay shards get their contents beside the run."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import ray


class Filling:
    """Gives each new, empty shard its contents in a thread, while the others serve on.

    Args:
        fill: does so, given a shard's index and handle.
    """

    def __init__(self, fill: Callable[[int, Any], None]) -> None:
        self._fill = fill
        self._running: dict[Future[None], tuple[int, Any]] = {}
        self._threads = ThreadPoolExecutor(thread_name_prefix="fill")

    @property
    def busy(self) -> bool:
        """Whether a shard still lacks its contents."""
        return not all(future.done() for future in self._running)

    def begin(self, index: int, shard: Any) -> None:
        """Fills one."""
        self._running[self._threads.submit(self._fill, index, shard)] = index, shard

    def take_filled(self) -> list[int]:
        """The indices of those that are full by now, once; not where another one is being filled in its place."""
        done = {future: index for future, (index, _) in self._running.items() if future.done()}
        for future in done:
            del self._running[future]
            future.result()
        return sorted(set(done.values()) - {index for index, _ in self._running.values()})

    def wait(self, timeout_s: float) -> None:
        """Gives them the time to become full."""
        wait(self._running, timeout_s)

    def close(self) -> None:
        """Ends it, so that no thread asks Ray for anything after its end."""
        for future, (_, shard) in self._running.items():
            if not future.done():
                ray.kill(shard)
        self._threads.shutdown(cancel_futures=True)
