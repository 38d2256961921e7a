"""A user's whole way with a cluster, on three hosts and the user's own machine: `ray up` to `ray down`, for real.

The tests are the steps of one journey, in their order; `make test-cluster` ends at the first that fails. Figures go to
build/cluster/figures.json.
"""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.cluster.environment import install
from tests.cluster.hosts import PROJECT, SHARED, Host, Network, install_tools
from tests.cluster.user import CPUS, FILE, RUN, SMALL, User
from tests.launching import ROOT, progress

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

FIGURES = ROOT / "build/cluster/figures.json"
HALF_A_MINUTE = 30.0
ENDING_S = 60.0
CHECKPOINT_S = 15.0  # between the checkpoints of `SMALL`
CTRL_C = "\x03"
MIRROR = f"file://{SHARED}/mario"
QUICK = f"--env.name gridworld {' '.join(SMALL.split())} --max-updates 20"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Someone in front of their machine, with nothing done yet."""
    install_tools()
    network = Network(install(), "laptop", "head", "worker", "spare")
    try:
        user = User(network)
        yield user
        FIGURES.write_text(json.dumps(user.figures, indent=2) + "\n")
    finally:
        network.close()


def test_ray_up_makes_a_cluster_of_the_hosts(user: User) -> None:
    user.fill_in([user.worker, user.spare])
    user.do("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
    begin = time.monotonic()
    user.do(f"ray up {FILE} -y")
    user.wait(lambda: set(user.nodes().values()) == {user.head.address, user.worker.address})
    user.figures["seconds from `ray up` to two hosts"] = time.monotonic() - begin
    for host in (user.head, user.worker):
        # What the set-up commands of the file leave behind, and the files that it mounts.
        assert (host.home / ".bashrc").read_text() == ". ~/.apex-mario\n"
        assert (host.home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
        for name in ("launch.py", "driver/training.py"):
            assert (host.home / PROJECT.name / name).read_text() == (ROOT / name).read_text()
        assert not (host.home / PROJECT.name / "tests").exists()
    assert not user.spare.processes()


def test_nobody_gets_in_without_the_token(user: User) -> None:
    address = f"{user.head.address}:6379"
    without = "export HOME=/tmp && unset RAY_AUTH_MODE &&"
    told = user.do(f"{without} python launch.py --ray.address {address}", status=2)
    assert told.startswith(f"launch.py: error: the Ray cluster at {address} asks for its token")
    assert told.count("\n") == 1
    assert "Unauthenticated" in user.do(f"{without} RAY_AUTH_MODE=disabled ray status --address {address}", status=1)
    # The dashboard is on the head's loopback.
    dashboard = "import socket; socket.create_connection(('{}', 8265), 5)"
    assert "refused" in user.do(f'python -c "{dashboard.format(user.head.address)}"', status=1)
    assert user.head.run(f'python3 -c "{dashboard.format("127.0.0.1")}"')[0] == 0


def test_launch_trains_with_actors_on_both_hosts(user: User) -> None:
    user.launch(f"--run-dir {RUN} --max-minutes 60 --checkpoint.uri {MIRROR} {SMALL}")
    user.wait(lambda: user.last["updates"] > 50 and user.last["actors_alive"] == 2 * CPUS - 1)
    assert f"2 nodes, {2 * CPUS} CPUs: {2 * CPUS - 1} actors" in user.told
    assert user.actors_by_host() == {user.head.address: CPUS - 1, user.worker.address: CPUS}
    # Learner, replay and evaluator are on the head.
    assert _roles(user.head) == {"RemoteActor", "RemoteEvaluator", "RemoteLearner", "RemoteReplayShard"}
    assert _roles(user.worker) == {"RemoteActor"}


def test_tensorboard_is_seen_at_home(user: User) -> None:
    shell = user.open_terminal(f"ray attach {FILE} -p 6006")
    assert shell.stdin
    shell.stdin.write(f"cd {PROJECT} && python -m tensorboard.main --host localhost --logdir runs\n")
    shell.stdin.flush()
    fetch = "from urllib.request import urlopen; print(urlopen('http://localhost:6006/data/runs').read().decode())"
    user.wait(lambda: user.machine.run(f'python3 -c "{fetch}"')[1] == '["journey"]\n')
    shell.communicate(f"{CTRL_C}\nexit\n")


def test_actors_follow_a_host_that_joins(user: User) -> None:
    begin = time.monotonic()
    user.do(f"ray up {FILE} -y --no-restart --min-workers 2")
    user.wait(lambda: user.last["actors_alive"] == 3 * CPUS - 1)
    user.figures["seconds from `ray up --min-workers 2` to actors on the third host"] = time.monotonic() - begin
    assert user.actors_by_host() == {user.head.address: CPUS - 1, user.worker.address: CPUS, user.spare.address: CPUS}


def test_actors_follow_a_host_that_leaves(user: User) -> None:
    begin, restarts = time.monotonic(), user.last["restarts"]
    user.do(f"ray up {FILE} -y --no-restart --min-workers 1 --max-workers 1")
    user.wait(lambda: user.last["actors_alive"] == 2 * CPUS - 1)
    user.figures["seconds from `ray up --max-workers 1` to fewer actors"] = time.monotonic() - begin
    _goes_on(user)
    assert user.last["restarts"] <= restarts + CPUS
    if user.spare.address in user.actors_by_host():  # Ray chooses which of the two stays
        user.worker, user.spare = user.spare, user.worker
    assert user.actors_by_host() == {user.head.address: CPUS - 1, user.worker.address: CPUS}


def test_a_cable_that_is_pulled_for_half_a_minute_stops_nobody(user: User) -> None:
    user.network.pull_cable(user.worker)
    pulled = time.monotonic()
    _goes_on(user)
    # By then an actor has played what it may play ahead, and waits.
    time.sleep(max(0.0, pulled + HALF_A_MINUTE - 5 - time.monotonic()))
    waiting = _seconds_played(user.worker)
    time.sleep(5)
    before = _seconds_played(user.worker)
    assert all(seconds - waiting[pid] < 2 for pid, seconds in before.items()), "the worker's actors were to wait"
    user.network.plug_in(user.worker)
    plugged = time.monotonic()

    def both_play() -> bool:
        played = [seconds - before.get(pid, 0.0) for pid, seconds in _seconds_played(user.worker).items()]
        return sum(seconds > 1 for seconds in played) == CPUS

    user.wait(lambda: both_play() and user.last["actors_alive"] == 2 * CPUS - 1)
    user.figures["seconds until actors play again after their cable is back"] = time.monotonic() - plugged
    assert user.actors_by_host() == {user.head.address: CPUS - 1, user.worker.address: CPUS}
    _goes_on(user)


def test_actors_of_a_host_that_is_lost_for_good_are_counted_down(user: User) -> None:
    before = user.log.count("the cluster has 1 node")
    user.network.pull_cable(user.worker)
    begin = time.monotonic()
    _goes_on(user)
    user.wait(lambda: user.last["actors_alive"] == CPUS - 1 and user.log.count("the cluster has 1 node") > before, 240)
    user.figures["seconds until a lost host's actors are counted down"] = time.monotonic() - begin
    _goes_on(user)


def test_two_commands_bring_a_run_back_after_the_head_had_no_power(user: User) -> None:
    lost = user.worker
    before = user.last
    user.network.power_cut(user.head)
    user.close_terminal()
    user.network.boot(user.head)
    user.worker, user.spare = user.spare, lost
    user.fill_in([user.worker])  # the lost one is taken off the list
    begin = time.monotonic()
    user.do(f"ray up {FILE} -y")
    up = time.monotonic()
    user.launch(f"--run-dir {RUN} --resume")
    _is_back(user, before)
    user.figures["seconds of `ray up` after a power cut"] = up - begin
    user.figures["seconds from `ray up` to the first update after a power cut"] = time.monotonic() - begin
    user.wait(lambda: user.last["actors_alive"] == 2 * CPUS - 1)
    assert user.actors_by_host() == {user.head.address: CPUS - 1, user.worker.address: CPUS}


def test_two_commands_bring_a_run_back_after_the_heads_ray_was_killed(user: User) -> None:
    begin = time.monotonic()
    assert user.head.run(".venv/bin/ray stop --force")[0] == 0
    assert user.end() == 1
    assert "launch.py: error: " in user.told
    assert "Traceback" not in user.told
    user.figures["seconds from the end of the head's Ray to that of the run"] = time.monotonic() - begin
    before = user.last
    begin = time.monotonic()
    user.do(f"ray up {FILE} -y")
    user.launch(f"--run-dir {RUN} --resume")
    _is_back(user, before)
    user.figures["seconds from `ray up` to the first update after the head's Ray was killed"] = time.monotonic() - begin
    user.wait(lambda: user.last["actors_alive"] == 2 * CPUS - 1)


def test_a_run_goes_on_from_its_mirror_where_the_heads_disk_is_lost(user: User) -> None:
    assert user.end(keys=CTRL_C) == 0
    assert f"python launch.py --resume {MIRROR}" in user.told
    before = user.last
    shutil.rmtree(user.run.parent)
    user.launch(f"--resume {MIRROR} --run-dir {RUN}")
    user.wait(lambda: user.last["updates"] > before["updates"])
    assert f"resuming from step-{before['updates']:012}: {before['env_steps']:,} env steps" in user.told


def test_a_checkpoint_comes_home_and_is_evaluated(user: User) -> None:
    assert user.end(keys=CTRL_C) == 0
    user.do(f"mkdir -p runs && ray rsync-down {FILE} '~/{PROJECT.name}/{RUN}/' {RUN}/")
    for name in ("best.pt", "config.yaml", *_checkpoint_files(user.run)):
        assert (user.machine.home / PROJECT.name / RUN / name).read_bytes() == (user.run / name).read_bytes()
    user.do(f"python evaluate.py {RUN} --episodes 2 --max-steps 50 --json out.json")
    evaluated = json.loads((user.machine.home / PROJECT.name / "out.json").read_text())
    assert evaluated["stages"]["1-1"]["episodes"] == 2


def test_ray_submit_and_ray_job_submit_run_launch_on_the_cluster(user: User) -> None:
    user.do(f"ray submit {FILE} launch.py --run-dir {PROJECT}/runs/submitted {QUICK}")
    tunnel = user.open_terminal(f"ray dashboard {FILE} -p 8265")
    user.wait(lambda: user.machine.run("exec 3<>/dev/tcp/127.0.0.1/8265")[0] == 0)
    job = f"cd {PROJECT} && python launch.py --run-dir runs/job {QUICK}"
    told = user.do(f"ray job submit --address http://127.0.0.1:8265 -- bash -c '{job}'")
    assert "succeeded" in told
    tunnel.communicate(CTRL_C)
    for name in ("submitted", "job"):
        assert progress(user.run.parent / name)[-1]["updates"] == 20


def test_a_host_with_other_code_is_refused_by_name(user: User) -> None:
    with (user.worker.home / PROJECT.name / "actors/actor.py").open("a") as file:
        file.write("# changed here alone\n")
    user.launch(f"--run-dir runs/refused {QUICK}")
    assert user.end() == 1
    assert (
        f"launch.py: error: node {user.worker.address} runs other code (actors/actor.py is not the same)" in user.told
    )
    assert not (user.run.parent / "refused").exists()


def test_ray_up_again_brings_new_code_to_all_hosts(user: User) -> None:
    changed = user.machine.home / PROJECT.name / "actors/actor.py"
    with changed.open("a") as file:
        file.write("# changed at home\n")
    user.do(f"ray up {FILE} -y")
    user.wait(lambda: set(user.nodes().values()) == {user.head.address, user.worker.address})
    for host in (user.head, user.worker):
        assert (host.home / PROJECT.name / "actors/actor.py").read_text() == changed.read_text()
    user.launch(f"--run-dir runs/new-code {QUICK}")
    assert user.end() == 0
    assert f"2 nodes, {2 * CPUS} CPUs: {2 * CPUS - 1} actors" in user.told


def test_ray_down_and_ray_stop_leave_nothing_running(user: User) -> None:
    user.network.plug_in(user.spare)
    user.do(f"ray down {FILE} -y")
    for host in (user.worker, user.spare):  # `ray down` ends the head alone where machines are one's own
        user.do(f"ssh -i ~/.ssh/id_ed25519 -o StrictHostKeyChecking=no {host.address} {PROJECT}/.venv/bin/ray stop")
    deadline = time.monotonic() + ENDING_S
    while (running := _running(user)) and time.monotonic() < deadline:
        time.sleep(1)
    assert running == {}
    for host in (user.head, user.worker, user.spare):
        assert host.run("ls -A /dev/shm") == (0, "")
        left = host.run("ls -A /tmp")[1].split()
        # Ray's logs and its connections' folder, an empty folder of multiprocessing and PyTorch's own cache.
        assert all(re.fullmatch("ray|ray_ssh_.*|pymp-.*|torchinductor_.*", name) for name in left), left


def test_the_hosts_vanish(user: User) -> None:
    namespaces = _namespaces(host.init for host in user.network.hosts)
    assert len(namespaces) == 2 * len(user.network.hosts)
    user.network.close()
    assert not namespaces & _namespaces(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    assert not user.network.folder.exists()
    assert str(user.network.folder) not in Path("/proc/self/mountinfo").read_text()


def _running(user: User) -> dict[str, list[str]]:
    """Titles of all processes by host."""
    found = {host.name: sorted(host.processes().values()) for host in user.network.hosts}
    return {name: titles for name, titles in found.items() if titles}


def _roles(host: Host) -> set[str]:
    titles = (title.removeprefix("ray::").partition(".")[0].split()[0] for title in host.processes().values())
    return {title for title in titles if title.startswith("Remote")}


def _seconds_played(host: Host) -> dict[int, float]:
    """Processor time of each of its actors."""
    actors = [pid for pid, title in host.processes().items() if title.startswith("ray::RemoteActor")]
    fields = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in actors}
    return {pid: sum(map(int, field[11:13])) / os.sysconf("SC_CLK_TCK") for pid, field in fields.items()}


def _is_back(user: User, before: dict[str, float]) -> None:
    """Waits for the first update of a resumed run; what it lost is at most a checkpoint's interval."""
    user.wait(lambda: "resuming from step-" in user.told)
    resumed = int(user.told.split("resuming from step-")[1].split(":")[0])
    user.wait(lambda: _lines(user)[-1]["updates"] > resumed and _lines(user)[-1] != before)
    assert "the replay goes on as it was" in user.told
    user.figures["updates lost"] = max(user.figures.get("updates lost", 0), before["updates"] - resumed)
    checkpointed = [line["time_s"] for line in _lines(user) if line["updates"] <= resumed]
    assert before["time_s"] - checkpointed[-1] < 2 * CHECKPOINT_S + 15, "more than an interval was lost"


def _checkpoint_files(run: Path) -> list[str]:
    """Those of the newest checkpoint, by their paths in the run."""
    newest = max((run / "checkpoints").glob("step-*"))
    return [path.relative_to(run).as_posix() for path in newest.iterdir()]


def _namespaces(pids: Iterable[int]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            found |= {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "net")}
    return found


def _lines(user: User) -> list[dict[str, float]]:
    return progress(user.run)


def _goes_on(user: User) -> None:
    """Actors play and the learner learns."""
    before = user.last
    user.wait(lambda: all(user.last[name] > before[name] for name in ("env_steps", "updates")))
