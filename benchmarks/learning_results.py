"""`docs/results.md` and its figures, from the records under `docs/results`.

    python -m benchmarks.learning_results

Groups of records (see `benchmarks.learning_record`): `default` holds one record per seed of the default preset,
`gpu` the same preset on a machine with one, `ablation-*` one per seed of a variant (`h200-ablation-*` on another
machine, with another budget), `stages` single stages and several at once, `exploration` the log of what was tried.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.dqn_results import load_results, markdown_table
from benchmarks.learning_curves import draw_ablation, draw_seeds
from benchmarks.learning_record import FOLDER
from benchmarks.learning_records import Record, load_groups, variants
from benchmarks.learning_tables import ablation_table, default_table, exploration_table, stage_table, verdict
from benchmarks.machine import ROOT
from common.actions import NEEDED_ACTIONS
from common.errors import UserError
from common.files import write_atomically

PAGE: Final = ROOT / "docs" / "results.md"
_RESULTS: Final = ROOT / "docs" / "results"
_CURVES: Final = "curves.png"
_DQN: Final = "dqn-vs-double"
ABLATIONS: Final = {
    "ablation": "What each option buys",
    "h200-ablation": "What each option buys in 220,000 env steps, on an H200",
}
"""Headings by the first part of the groups' names, which their variants follow."""


def main() -> int:
    """Writes the page and the figures; returns the exit status: 0, or 2 where a record cannot be read."""
    try:
        groups = load_groups(FOLDER)
        write_atomically(PAGE, render(groups).encode())
        draw(groups, FOLDER)
    except UserError as error:
        print(f"learning_results: error: {error}", file=sys.stderr)
        return 2
    print(PAGE)
    return 0


def render(groups: dict[str, list[Record]]) -> str:
    """The page, from the records by group."""
    parts = [_text("introduction.txt")]
    if seeds := groups.get("default"):
        parts += ["## The default preset, from scratch", verdict(seeds), default_table(seeds), _picture(_CURVES)]
        parts += ["### Where Mario dies", _text("hazards.txt")]
    if on_gpus := groups.get("gpu"):
        parts += ["## The same preset on a GPU", _text("gpu.txt"), default_table(on_gpus)]
    for prefix, heading in ABLATIONS.items():
        if found := variants(groups, prefix):
            parts += [f"## {heading}", _text(f"{prefix}.txt"), ablation_table(found), _picture(f"{prefix}.png")]
    parts += ["## DQN beside double DQN", _comparison()]
    published = [record for name in ("default", "stages") for record in groups.get(name, [])]
    parts += ["## Stages", _text("stages.txt"), stage_table(published, _routes(), NEEDED_ACTIONS)]
    if tried := groups.get("exploration"):
        parts += ["## What was tried", _text("tried.txt"), exploration_table(tried)]
    return "\n\n".join(parts) + "\n"


def draw(groups: dict[str, list[Record]], folder: Path) -> None:
    """Writes the page's figures into a folder."""
    if seeds := groups.get("default"):
        draw_seeds(seeds, folder / _CURVES)
    for prefix in ABLATIONS:
        if found := variants(groups, prefix):
            draw_ablation(found, folder / f"{prefix}.png")


def _picture(name: str) -> str:
    return f"![{name}](results/{FOLDER.name}/{name})"


def _comparison() -> str:
    words = (
        "40,000 env steps a run, so that nobody clears the stage yet. Double DQN chooses the next action by the online "
        f"network, DQN by the target network. Protocol, command, commit and what follows from it: [{_DQN}](results/"
        f"{_DQN}/README.md)."
    )
    pictures = "\n\n".join(f"![{name}](results/{_DQN}/{name}.png)" for name in ("learning", "overestimation"))
    return f"{words}\n\n{pictures}\n\n{markdown_table(load_results(_RESULTS / _DQN / 'data'))}"


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").rstrip()


def _routes() -> dict[str, Any]:
    path = _RESULTS / "routes.json"
    routes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return routes


if __name__ == "__main__":
    sys.exit(main())
