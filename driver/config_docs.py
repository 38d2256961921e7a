"""Writes `docs/configuration.md` from the dataclasses of `common/config.py`: `python -m driver.config_docs`."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "common" / "config.py"
PAGE = ROOT / "docs" / "configuration.md"

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m driver.config_docs` from common/config.py; a test keeps them equal. Do not edit by hand. -->

Every setting has one owner, a frozen dataclass in `common/config.py`, and a default there. Three things change it,
the later ones winning:

1. a **preset**, `--preset NAME`: a set of settings under a name;
2. a **YAML file**, `--config FILE`: only the settings it names;
3. **command-line options**, as in the tables below.

The result is written to the run directory and to TensorBoard. `python launch.py --help` lists the same options.

```yaml
# my-run.yaml: python launch.py --config my-run.yaml --learner.batch-size 128
env:
  stages: ["1-1", "1-2"]
actors:
  count: 4
replay:
  capacity: 200000
  samples_per_insert: 4
learner:
  max_grad_norm: null
seed: 7
max_minutes: 60
```

In YAML, names are written with underscores and nested by section, and *none* is `null`; on the command line
they are written with hyphens, *none* is `None`, and a switch such as `--agent.double` is turned off by
`--agent.no-double`. A list takes several values: `--env.stages 1-1 1-2`.

## What to run and where

| option | meaning |
|---|---|
| `--preset NAME` | Settings to start from: {presets}. |
| `--config FILE` | YAML file with settings that replace the preset's. |
| `--run-dir DIR` | Folder of the run; refused when it holds a run already, unless `--resume`. `runs/TIME_STAGES` if not given. |
| `--resume [DIR]` | Goes on with the run in that folder, else in `--run-dir`, else with the newest one in `runs/`. Settings come from the run; only what ends, places or watches it may differ, all else that contradicts it is refused by name. |
"""  # noqa: E501 - a table's row cannot be broken

_TABLE_HEADER = "| option | type | default | meaning |\n|---|---|---|---|"
_TYPE_NAMES = {"int": "integer", "float": "number", "str": "text", "bool": "switch"}


@dataclass(frozen=True)
class _Setting:
    """One field of a dataclass, in the words of the page."""

    name: str
    annotation: ast.expr
    default: ast.expr | None
    meaning: str

    def row(self, prefix: str, source: str) -> str:
        """The setting's line of the table."""
        option = f"`--{prefix}{self.name.replace('_', '-')}`"
        cells = [option, _type_text(self.annotation), _default_text(self.default, source), self.meaning]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render(source: str, presets: Iterable[str]) -> str:
    """The page for a configuration module.

    Args:
        source: the module's text: dataclasses whose fields are each followed by a string, the last of them
            `Config`, whose fields without such a string are the sections.
        presets: names of the presets.

    Raises:
        ValueError: a setting has no documentation, or there is no class `Config`.
    """
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    if "Config" not in classes:
        raise ValueError("no class Config")
    sections: list[str] = []
    settings: list[_Setting] = []
    for field, meaning in _fields(classes["Config"]):
        section = classes.get(ast.unparse(field.annotation))
        if section is None:
            settings.append(_setting(field, meaning))
        else:
            sections.append(_section(_name(field), section, source))
    run = _table("The run", "", settings, source)
    introduction = _INTRODUCTION.format(presets=", ".join(f"`{name}`" for name in presets))
    return "\n".join([introduction, run, *sections])


def main() -> int:
    """Writes the page."""
    PAGE.write_text(render(SOURCE.read_text(encoding="utf-8"), PRESETS), encoding="utf-8")
    return 0


def _section(name: str, node: ast.ClassDef, source: str) -> str:
    title = f"`{name}`: {ast.get_docstring(node) or ''}".rstrip(".")
    settings = [_setting(field, meaning) for field, meaning in _fields(node)]
    return _table(title, f"{name}.", settings, source)


def _table(title: str, prefix: str, settings: list[_Setting], source: str) -> str:
    rows = [setting.row(prefix, source) for setting in settings]
    return "\n".join([f"## {title}\n", _TABLE_HEADER, *rows, ""])


def _fields(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """The annotated fields, each with the string that follows it, or with an empty one."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            yield statement, _string(following)


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _setting(field: ast.AnnAssign, meaning: str) -> _Setting:
    if not meaning:
        raise ValueError(f"line {field.lineno}: setting {_name(field)} has no documentation")
    return _Setting(_name(field), field.annotation, field.value, meaning)


def _name(field: ast.AnnAssign) -> str:
    return ast.unparse(field.target)


def _type_text(annotation: ast.expr) -> str:
    """`int | Literal["auto"]` as "integer or `auto`"."""
    if isinstance(annotation, ast.BinOp):
        return f"{_type_text(annotation.left)} or {_type_text(annotation.right)}"
    if isinstance(annotation, ast.Subscript):
        if ast.unparse(annotation.value) == "Literal":
            return ", ".join(f"`{value}`" for value in _literals(annotation.slice))
        return f"list of {_type_text(_first(annotation.slice))}"
    name = ast.unparse(annotation)
    return _TYPE_NAMES.get(name, name.lower())


def _literals(node: ast.expr) -> tuple[object, ...]:
    value = ast.literal_eval(node)
    return value if isinstance(value, tuple) else (value,)


def _first(node: ast.expr) -> ast.expr:
    return node.elts[0] if isinstance(node, ast.Tuple) else node


def _default_text(default: ast.expr | None, source: str) -> str:
    """The default as it is written in the source (`1 / 15`, `2.5e-4`), without Python's quotes and underscores."""
    if default is None:
        return "required"
    if isinstance(default, ast.Tuple):
        return " ".join(_default_text(element, source) for element in default.elts) or "empty"
    if isinstance(default, ast.Constant):
        if default.value is None:
            return "none"
        if isinstance(default.value, bool):
            return "on" if default.value else "off"
        if isinstance(default.value, str):
            return f"`{default.value}`"
    return f"`{(ast.get_source_segment(source, default) or '').replace('_', '')}`"


if __name__ == "__main__":
    raise SystemExit(main())
