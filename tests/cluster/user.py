"""What somebody with a cluster does at their own machine, and what they see."""

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.environment import copy_working_tree
from tests.cluster.hosts import HOME, PROJECT, Host, Network
from tests.launching import ROOT, progress

FILE = "cluster.onprem.yaml"
RUN = "runs/journey"
# Small enough to learn within seconds on two cores that all hosts share.
SMALL = """
    --actors.envs-per-actor 2 --actors.chunk-length 16 --actors.weights-poll-s 0.5 --replay.capacity 4000
    --replay.min-size 100 --learner.batch-size 16 --learner.broadcast-period 5 --eval.interval-s 60 --eval.episodes 1
    --eval.max-episodes 1 --eval.max-steps 50 --checkpoint.interval-s 15
"""
CPUS = 2  # that Ray counts on each host


class User:
    """Someone with a clone of the project on the network's first host; the others are head, worker and spare."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.machine, self.head, self.worker, self.spare = network.hosts
        self.figures: dict[str, float] = {}
        self._launched: subprocess.Popen[str] | None = None
        copy_working_tree(self.machine.home)

    def fill_in(self, workers: list[Host]) -> None:
        """Writes their own values into `cluster.onprem.yaml`, as its comments ask for."""
        addresses = ", ".join(host.address for host in workers)
        values = {
            "head_ip: 192.0.2.10 ": f"head_ip: {self.head.address} ",
            "worker_ips: [192.0.2.11, 192.0.2.12]": f"worker_ips: [{addresses}]",
            "ssh_private_key: ~/.ssh/apex-mario ": "ssh_private_key: ~/.ssh/id_ed25519 ",
            "ray start --head ": f"ray start --head --num-cpus={CPUS} ",
            "ray start --address": f"ray start --num-cpus={CPUS} --address",
        }
        text = (ROOT / FILE).read_text()
        for old, new in values.items():
            assert text.count(old) == 1, f"{FILE} has no place for {new!r}"
            text = text.replace(old, new)
        (self.machine.home / PROJECT.name / FILE).write_text(text)

    def do(self, line: str, timeout_s: float = 300, *, status: int = 0) -> str:
        """What a line at the user's machine prints, with the environment that docs/clusters.md asks for."""
        ended, output = self.machine.run(f"{_SHELL} && {line}", timeout_s)
        assert ended == status, f"{line!r} ended with status {ended}: {output}"
        return output

    def open_terminal(self, line: str, record: str = "/dev/null") -> "subprocess.Popen[str]":
        """A line at the user's machine in a terminal of its own: stdin is its keyboard, `record` what is seen."""
        return self.machine.start(f'{_SHELL} && script --quiet --flush --return --command "{line}" {record}')

    def launch(self, options: str) -> None:
        """Starts `launch.py` on the head, in such a terminal; `told` is what is seen there."""
        line = f"ray exec {FILE} 'cd {PROJECT.name} && python launch.py {' '.join(options.split())}'"
        self._launched = self.open_terminal(line, str(_TOLD))

    def end(self, *, keys: str = "") -> int:
        """Types the keys; returns the exit status of `launch.py`, or of `ray exec`, which makes it 0 or 1."""
        assert self._launched is not None
        self._launched.communicate(keys, timeout=300)
        return self._launched.returncode

    def close_terminal(self) -> None:
        """Closes the one that `launch` opened: `ray exec` does not notice that the machine at its other end is gone."""
        assert self._launched is not None
        self.machine.run("pkill -HUP -x script")
        self._launched.communicate(timeout=60)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 180) -> None:
        """Returns once `condition` holds.

        Raises:
            AssertionError: it does not, with what is known of the run.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain; {self.last}; {self.told[-2000:]}"
            time.sleep(0.5)

    @property
    def told(self) -> str:
        """What the last `launch.py` has printed."""
        path = self.machine.home / _TOLD.name
        return path.read_text() if path.exists() else ""

    @property
    def run(self) -> Path:
        """The run's folder, on the head."""
        return self.head.home / PROJECT.name / RUN

    @property
    def log(self) -> str:
        """What the run has written down of itself."""
        return (self.run / "mario.log").read_text()

    @property
    def last(self) -> dict[str, Any]:
        """The newest line of the run's progress."""
        lines = progress(self.run)
        return lines[-1] if lines else {"updates": 0, "env_steps": 0, "actors_alive": 0}

    def nodes(self) -> dict[str, str]:
        """Addresses of Ray's living nodes by node id."""
        return {node["node_id"]: node["node_ip"] for node in self._list("nodes", "state=ALIVE")}

    def actors_by_host(self) -> Counter[str]:
        """How many of the run's actors are alive on which address, as Ray says by node id."""
        nodes, actors = self.nodes(), self._list("actors", "state=ALIVE", "class_name=RemoteActor")
        return Counter(nodes[actor["node_id"]] for actor in actors)

    def _list(self, what: str, *filters: str) -> list[dict[str, Any]]:
        options = " ".join(f"--filter {one}" for one in filters)
        output = self.do(f"ray exec {FILE} 'ray list {what} --format json --limit 100 {options}'")
        found = re.search(r"^\[.*\]\r?$", output, re.MULTILINE)
        assert found, f"ray list {what}: {output}"
        listed: list[dict[str, Any]] = json.loads(found[0])
        return listed


_TOLD = HOME / "told"
_SHELL = "source .venv/bin/activate && export RAY_UP_enable_autoscaler_v2=0 RAY_AUTH_MODE=token"
