"""The benchmarks' results as Markdown: `python -m benchmarks.performance_tables [FILE ...]`.

Without files: all of `docs/results/performance/`. A result is a JSON file that is a list of rows or has one under
`rows`. A row has a `name`, a `figure` and its `unit`, the `ceiling` or the `peer` that it is held against (a number in
the same unit, or a name, whose number is `ceiling_figure` or `peer_figure`), the `ratio` of the two, and where there is
one the `goal` of that ratio.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import ROOT
from common.errors import UserError

RESULTS: Final = ROOT / "docs" / "results" / "performance"
_NEEDED: Final = ("name", "figure", "unit", "ratio")
_NONE: Final = "\N{EN DASH}"
_HEAD: Final = "| figure | measured | ceiling or peer | ratio | goal |\n|---|---|---|---|---|"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table per file; returns 0, or 2 after a mistake of the user's."""
    names = list(sys.argv[1:] if argv is None else argv)
    try:
        paths = [Path(name) for name in names] or sorted(RESULTS.glob("*.json"))
        if not paths:
            raise UserError(f"there is no result in {RESULTS}")
        for path in paths:
            print(f"### {path.stem}\n\n{table(read_rows(path))}\n")
    except UserError as error:
        print(f"performance_tables: error: {error}", file=sys.stderr)
        return 2
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a result.

    Raises:
        UserError: the file cannot be read, or has no rows of the expected form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    found = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UserError(f"{path} holds no list of rows")
    for row in found:
        missing = [key for key in _NEEDED if key not in row]
        if missing or not {"ceiling", "peer"} & set(row):
            raise UserError(f"{path}: a row lacks {', '.join(missing) or 'ceiling or peer'}: {row}")
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line per row."""
    return "\n".join([_HEAD, *map(_line, found)])


def _line(row: dict[str, Any]) -> str:
    kind = "ceiling" if "ceiling" in row else "peer"
    held_against = _cell(row[kind])
    number = row.get(f"{kind}_figure")
    if number is not None:
        held_against += f": {_cell(number)}"
    cells = [row["name"], f"{_cell(row['figure'])} {row['unit']}", held_against, _ratio(row["ratio"]), _goal(row)]
    return f"| {' | '.join(cells)} |"


def _goal(row: dict[str, Any]) -> str:
    """Whether a goal was met; empty where there is none, or where it is put in words."""
    goal, ratio = row.get("goal"), row["ratio"]
    if goal is None:
        return ""
    if not isinstance(goal, int | float) or ratio is None:
        return str(goal)
    return f"≥ {goal:g}: {'met' if ratio >= goal else 'missed'}"


def _ratio(value: Any) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _cell(value: Any) -> str:
    """Numbers with three significant digits or more; anything else as it is."""
    if value is None:
        return _NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
