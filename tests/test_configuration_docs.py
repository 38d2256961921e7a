"""`docs/configuration.md` is what the dataclasses say."""

from pathlib import Path

import pytest

from common.config import Config
from common.presets import PRESETS
from driver.config_docs import PAGE, SOURCE, render
from driver.options import flatten, load_config

_CLASS = '''
class PartConfig:
    """A part of it."""
    size: int | Literal["auto"] = {default}
    {doc}

class Config:
    part: PartConfig = field(default_factory=PartConfig)
    names: tuple[str, ...] = ("a", "b")
    """Names."""
    limit: float | None = None
    """The limit;
    in seconds."""
'''


def test_the_page_is_the_generators_output() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render(SOURCE.read_text(encoding="utf-8"), PRESETS), "run python -m driver.config_docs"


def test_every_setting_stands_in_the_page_as_an_option() -> None:
    page = PAGE.read_text(encoding="utf-8")
    options = [f"| `--{name.replace('_', '-')}` |" for name in flatten(Config())]
    assert [option for option in options if page.count(option) != 1] == []


def test_the_pages_example_is_a_valid_file(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "my-run.yaml"
    path.write_text(example, encoding="utf-8")
    config = load_config(path)
    assert config.env.stages == ("1-1", "1-2")
    assert config.learner.max_grad_norm is None
    assert config.max_minutes == 60


def test_a_setting_shows_its_option_type_default_and_meaning() -> None:
    page = render(_CLASS.format(default="1_000", doc='"""Its size; a|b."""'), ["a", "b"])
    assert "start from: `a`, `b`." in page
    assert "## `part`: A part of it\n" in page
    assert "| `--part.size` | integer or `auto` | `1000` | Its size; a\\|b. |" in page
    assert "| `--names` | list of text | `a` `b` | Names. |" in page
    assert "| `--limit` | number or none | none | The limit; in seconds. |" in page


def test_a_default_is_written_as_in_the_source() -> None:
    assert "| `1 / 15` |" in render(_CLASS.format(default="1 / 15", doc='"""Size."""'), [])


def test_a_setting_without_documentation_is_an_error() -> None:
    with pytest.raises(ValueError, match="size has no documentation"):
        render(_CLASS.format(default="1", doc="other: int = 2"), [])


def test_a_module_without_config_is_an_error() -> None:
    with pytest.raises(ValueError, match="no class Config"):
        render("x = 1", [])
