"""The scaling benchmark: real processes told apart, costs per role, growth, memory, files."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.machine import ROOT, describe_machine
from benchmarks.scaling import growth_rows, main, rows
from benchmarks.scaling_processes import ROLES, cpu_seconds, memory_bytes, processes_by_role
from benchmarks.scaling_run import Measured, Setup
from driver.options import parse_options

SETUP = Setup(actors=4, shards=2, step_ms=50.0, seconds=10.0, warm_up_s=1.0)


def measured(actors: int, shards: int, *, cpu_per_actor: float, power: float = 1.0) -> Measured:
    """Figures of a system whose costs are `cpu_per_actor` * actors ** power."""
    cost = cpu_per_actor * actors**power
    return Measured(
        setup=replace(SETUP, actors=actors, shards=shards),
        seconds=10.0,
        env_steps_per_s=actors * 18.0,
        samples_per_s=actors * 4.5,
        samples_per_insert=0.2,
        policy_lag=3.0,
        actor_wait_fraction=0.0,
        learner_wait_fraction=0.5,
        cpu=dict.fromkeys(ROLES, cost),
        memory=dict.fromkeys(ROLES, round(1e9 * cost)),
        processes=dict.fromkeys(ROLES, 1),
    )


def test_a_process_is_found_with_its_descendants_and_what_they_cost() -> None:
    child = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "s = time.process_time()\nwhile time.process_time() - s < 0.3: pass\nprint('ready', flush=True); p.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    roles = processes_by_role(process.pid)
    cpu, memory = cpu_seconds(roles), memory_bytes(roles)
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()
    assert sorted(roles.values()) == ["driver", "other"]
    assert cpu["driver"] >= 0.3
    assert memory["driver"] > 1e6
    assert memory["other"] > 1e6
    assert cpu_seconds(roles)["driver"] == 0


def test_throughput_and_samples_per_insert_are_compared_with_their_ceilings() -> None:
    throughput, ratio = rows([measured(4, 2, cpu_per_actor=0.1)])
    assert throughput["ceiling"] == 4 * 1000 / 50
    assert throughput["ratio"] == pytest.approx(18 / 20)
    assert ratio["ratio"] == pytest.approx(0.8)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_growth_is_the_power_of_the_number_of_actors(power: float) -> None:
    results = [measured(n, 1, cpu_per_actor=0.1, power=power) for n in (1, 4, 16)]
    listed = growth_rows(results)
    assert [row["figure"] for row in listed] == pytest.approx([power] * len(listed), abs=1e-3)
    assert all(row["name"].endswith("4 to 16 actors, 1 shard") for row in listed)


def test_sizes_with_different_shards_are_not_mixed() -> None:
    assert growth_rows([measured(4, 1, cpu_per_actor=0.1), measured(16, 2, cpu_per_actor=0.1)]) == []


def test_the_setup_is_one_that_launch_accepts(tmp_path: Path) -> None:
    for setup in (SETUP, replace(SETUP, actors=1, shards=4, step_ms=128.0), replace(SETUP, actors=64)):
        config = parse_options(setup.options(tmp_path / "run")).config
        assert (config.env.name, config.actors.count, config.eval.enabled) == ("synthetic", setup.actors, False)


def test_sizes_that_the_memory_does_not_hold_are_left_out_with_the_arithmetic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--actors", "1000000", "--shards", "2"]) == 0
    left_out = "1000000 actors, 2 shards: left out: at 250 MB an actor it takes 250,001,500 MB, and "
    assert left_out in capsys.readouterr().out


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    assert main(["--actors", "1", "--out", str(path)]) == 2
    assert "is no results file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step_ms", "cpu", "complaint"), [(20.0, None, "another --step-ms"), (50.0, "a fast one", "another machine")]
)
def test_sizes_of_another_environment_or_machine_are_not_mixed_in(
    step_ms: float, cpu: str | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scaling.json"
    machine = describe_machine() | ({} if cpu is None else {"cpu": cpu})
    path.write_text(json.dumps({"raw": [measured(1, 1, cpu_per_actor=0.1).as_json()], "machine": machine}))
    before = path.read_text()
    assert main(["--actors", "1", "--step-ms", str(step_ms), "--out", str(path)]) == 2
    assert complaint in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.slow
def test_the_real_system_is_measured_and_known_sizes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "scaling.json"
    known = measured(1, 1, cpu_per_actor=0.1)
    known = replace(known, setup=replace(known.setup, step_ms=20.0))
    path.write_text(json.dumps({"raw": [known.as_json()], "machine": describe_machine()}))
    options = ["--seconds", "12", "--warm-up", "1", "--step-ms", "20", "--out", str(path)]
    assert main(["--actors", "2", "--shards", "2", *options]) == 0
    content = json.loads(path.read_text())
    before, new = (Measured.from_json(values) for values in content["raw"])
    assert before == known
    assert new.processes | {"other": 0} == {
        **{"driver": 1, "actors": 2, "shards": 2, "learner": 1, "evaluator": 0, "gcs": 1, "raylet": 1, "other": 0}
    }
    assert 0 < new.env_steps_per_s <= 1.2 * new.setup.ceiling
    assert new.samples_per_insert > 0
    assert min(new.cpu["actors"], new.cpu["learner"], new.cpu["shards"]) > 0
    assert new.memory["actors"] > 2 * 50e6
    assert {"machine", "commit", "rows"} <= set(content)


@pytest.mark.slow
def test_every_kind_of_call_has_its_cost(tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    command = [sys.executable, "-m", "benchmarks.scaling_calls", "--seconds", "1", "--out", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280)
    figures = {row["name"]: row["figure"] for row in json.loads(path.read_text())["rows"]}
    assert len(figures) == 5 * 2 + 3
    assert min(figures.values()) > 0
    assert figures["shard: sample 64, answering"] > figures["shard: may I insert?, answering"]
