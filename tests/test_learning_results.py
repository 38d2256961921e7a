"""The page of results: what is committed is what the records say, and each table says what its reader asks."""

from typing import Any

import pytest

from benchmarks.learning_curves import draw_ablation, draw_seeds
from benchmarks.learning_record import FOLDER
from benchmarks.learning_records import TEST_SEED, Record, changes, load_groups, machines, variants
from benchmarks.learning_results import PAGE, render
from benchmarks.learning_tables import ablation_table, default_table, exploration_table, stage_table, verdict
from common.errors import UserError

MACHINE = {"cpu": "a processor", "cores": 2, "gpu": None, "python": "3.11.7", "torch": "2.13.0"}


def test_the_committed_page_is_what_the_records_say() -> None:
    assert PAGE.read_text() == render(load_groups(FOLDER)), "run make results"


def _record(
    seed: int, rate: float, *, first_clear_s: float | None = 300.0, settings: dict[str, Any] | None = None
) -> Record:
    figures = {"clears": round(300 * rate), "episodes": 300, "clear_rate": rate, "clear_rate_ci95": [0.5, 0.9]}
    figures["clears_in_order"] = "1" * round(300 * rate) + "0" * (300 - round(300 * rate))
    evaluations = [
        {"time_s": 60.0 * k, "env_steps": 900 * k, "clear_rate": k / 4, "mean_x": 300 * seed * k, "seconds": 30.0}
        for k in (1, 2, 3)
    ]
    measured = [{"protocol": {"seed": of, "sticky_actions": 0.0}, "stages": {"1-1": figures}} for of in (0, TEST_SEED)]
    return {
        "seed": seed,
        "stages": ["1-1"],
        "command": f"python launch.py --seed {seed}",
        "commit": "0123456789",
        "machine": MACHINE,
        "minutes": 3.0,
        "env_steps": 1000 * seed,
        "updates": 70,
        "first_clear_s": first_clear_s,
        "evaluations": evaluations,
        "measured": measured,
        "settings": {"seed": seed, "max_minutes": 3.0, "learner.device": "cuda", **(settings or {})},
    }


def test_the_verdict_counts_seeds_and_episodes() -> None:
    words = verdict([_record(1, 0.97), _record(2, 0.94), _record(3, 0.96, first_clear_s=481.0)])
    assert "The first 100 episodes pass in **3 of 3 seeds** (100, 100, 100 clears)" in words
    assert "all that were measured have 95% in **2 of 3**, and 98%, which would make" in words
    assert "safe to pass, in **0**. The first clear was in time in 2 of 3." in words
    assert "safe to pass, in **1**." in verdict([_record(1, 0.97), _record(2, 0.98)])
    assert "861 of 900 episodes clear, 95.7%" in words
    unmeasured = _record(1, 0.97) | {"measured": []}
    late = _record(1, 0.97)
    late["measured"][1]["stages"]["1-1"]["clears_in_order"] = "0" * 6 + "1" * 294
    assert "pass in **0 of 1 seeds** (94 clears)" in verdict([late])
    late["measured"][1]["stages"]["1-1"]["clears_in_order"] = "1" * 99
    with pytest.raises(UserError, match="lacks the order of 100 episodes"):
        verdict([late])
    assert verdict([unmeasured]) == "No seed has been measured yet."


def test_the_default_table_has_each_seeds_commit_and_command_and_what_evaluations_cost() -> None:
    text = default_table([_record(1, 0.97), _record(2, 0.94)])
    assert "| 1 | 3.0 | 1,000 | 70 | 5:00 | 97.0% of 300 (50.0% to 90.0%) | \N{EN DASH} | 50% | 0123456 |" in text
    assert "`python launch.py --seed 1`, `python launch.py --seed 2`" in text
    assert "2 cores of a processor, Python 3.11.7, PyTorch 2.13.0" in text


def test_the_ablation_table_holds_variants_against_the_default_at_the_same_budget() -> None:
    records = {
        "one-step": [_record(seed, rate, settings={"agent.n_step": 1}) for seed, rate in ((1, 0.2), (2, 0.4))],
        "default": [_record(1, 0.9), _record(2, 0.7), _record(3, 0.1)],
        "unmeasured": [_record(1, 0.9) | {"measured": [], "evaluations": []}],
    }
    groups = {f"ablation-{name}": found for name, found in records.items()} | {"h200-ablation-default": []}
    assert variants(groups, "ablation") == records
    lines = ablation_table(records).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| default", "| one-step", "| unmeasured"]
    assert "| 1, 2 | 30% | 80% | 20%, 40% | 1,350 (900 to 1,800) | 3 minutes | 3.0 (3.0 to 3.0) |" in lines[3]
    assert "| 1,500 (1,000 to 2,000) | `agent.n_step=1` | 0123456 |" in lines[3]
    commands = ", ".join(f"`python launch.py --seed {seed}`" for seed in (1, 2, 3))
    assert lines[-1].endswith(f"Commands: {commands} and what was changed.")


def test_a_variants_other_budget_and_what_only_one_of_its_seeds_set_are_in_its_row() -> None:
    longer = _record(2, 0.4, settings={"agent.n_step": 1, "eval.interval_s": 9.0})
    del longer["settings"]["max_minutes"]
    longer["settings"]["total_env_steps"] = 320_000
    on_cpu = _record(2, 0.5)
    del on_cpu["settings"]["learner.device"]
    found = {"default": [_record(1, 0.9), on_cpu], "one-step": [_record(1, 0.2, settings={"agent.n_step": 1}), longer]}
    row = ablation_table(found).splitlines()[3]
    assert "| 3 minutes; 320,000 env steps |" in row
    assert "| `agent.n_step=1`; seed 2 also `learner.device=cuda, eval.interval_s=9.0` |" in row


def test_the_log_has_each_runs_command_and_processor() -> None:
    run = _record(4, 0.9) | {"name": "01-first", "note": "slow", "uncommitted_changes": False, "evaluations": []}
    row = exploration_table([run])
    assert row.endswith("| 0123456 | slow | `python launch.py --seed 4` | a processor |")


def test_machines_of_one_name_that_compute_otherwise_are_two() -> None:
    with_it, without = ({"machine": MACHINE | {"cpu_bfloat16": it}} for it in (True, False))
    text = machines([with_it, without, with_it])
    assert text.count("2 cores of a processor") == 2
    assert "a processor (bf16), Python" in text
    assert "a processor (without bf16), Python" in text


def test_each_stage_has_a_row_and_a_policy_that_never_saw_it_is_called_so() -> None:
    record = _record(1, 0.97)
    figures = record["measured"][1]["stages"]["1-1"]
    record["measured"].append(
        {"protocol": {"seed": TEST_SEED, "sticky_actions": 0.0}, "stages": {"1-3": figures | {"clear_rate": 0.01}}}
    )
    routes = {"1-3": {"actions": "right_only"}, "7-4": {"actions": None}}
    rows = stage_table([record], routes, {"1-3": "complex", "8-4": "complex"}).splitlines()[2:]
    assert rows[32:] == ["", "Machine: 2 cores of a processor, Python 3.11.7, PyTorch 2.13.0."]
    assert rows[0].startswith("| 1-1 |  | 97.0% of 300 (50.0% to 90.0%) | trained on 1-1 | 3.0 | 1,000 | 0123456 |")
    assert rows[2].startswith("| 1-3 | `right_only` | 1.0% of 300 (50.0% to 90.0%) | zero-shot, trained on 1-1 |")
    assert rows[27].startswith("| 7-4 | none found |  |")
    assert rows[31].startswith("| 8-4 | `complex` (by the map) |  |")


def test_a_stages_own_policy_stands_before_that_of_several_and_before_one_that_never_trained_on_it() -> None:
    of = {name: _record(1, 0.9) | {"stages": stages} for name, stages in (("both", ["1-1", "1-2"]), ("own", ["1-1"]))}
    other = _record(1, 0.9) | {"stages": ["1-2"]}
    rows = stage_table([other, of["both"], of["own"]], {}, {}).splitlines()[2:5]
    policies = [row.split(" | ")[3] for row in rows]
    assert policies == ["trained on 1-1", "trained on 1-1 1-2", "zero-shot, trained on 1-2"]


def test_what_all_runs_of_an_ablation_were_told_is_no_change() -> None:
    usual = {"learner.device": "cuda", "env.stages": ["1-2"]}
    record = {"settings": {"seed": 4, "max_minutes": 1.0, **usual, "agent.n_step": 3}}
    assert changes(record, usual) == {"agent.n_step": 3}
    assert changes(record) == usual | {"agent.n_step": 3}


def test_figures_are_drawn_of_one_seed_or_several_and_beside_the_default(tmp_path: Any) -> None:
    draw_seeds([_record(1, 0.9)], tmp_path / "one.png")
    draw_seeds([_record(1, 0.9), _record(2, 0.5)], tmp_path / "two.png")
    found = {name: [_record(1, 0.9)] for name in ("default", "b", "c", "d", "e")}
    draw_ablation(found, tmp_path / "ablation.png")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["ablation.png", "one.png", "two.png"]
    assert sizes["two.png"] > sizes["one.png"] > 10_000  # a band and a mean more


def test_a_file_that_is_no_record_is_named(tmp_path: Any) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "seed-1.json").write_text('{"stages": ["1-1"]}')
    with pytest.raises(UserError, match=r"seed-1.json is no record of a training: it lacks command, commit, env_steps"):
        load_groups(tmp_path)
    (tmp_path / "default" / "seed-1.json").write_text("{")
    with pytest.raises(UserError, match=r"seed-1.json cannot be read"):
        load_groups(tmp_path)
