"""Asks an autoscaler for cores: by tasks that wait for them, which end with this process whatever becomes of it."""

from collections.abc import Sequence
from typing import Any

import ray
from ray import cloudpickle

from driver import demand_task
from driver.demand_task import nothing


class Demand:
    """So many cores are wanted beside those that are used."""

    def __init__(self) -> None:
        cloudpickle.register_pickle_by_value(demand_task)  # a node that joins may have other code
        self._waiting: list[Any] = []

    def ask(self, cores: int, refused: Sequence[str]) -> None:
        """Makes the waiting tasks so many.

        Args:
            cores: that are missing.
            refused: nodes whose cores do not count.
        """
        if self._waiting:
            _, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
        for reference in self._waiting[cores:]:
            ray.cancel(reference)
        del self._waiting[cores:]
        options = {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(refused))})"}} if refused else {}
        decorate: Any = ray.remote
        task = decorate(num_cpus=1, max_retries=0, **options)(nothing)
        self._waiting += [task.remote() for _ in range(cores - len(self._waiting))]
