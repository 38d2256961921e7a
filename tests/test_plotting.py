"""The picture of a stacked observation, and the command that makes it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.plotting import observation_figure
from driver import pictures


def test_the_frames_stand_side_by_side_oldest_first() -> None:
    state = np.stack([np.full((84, 84), 60 * i, np.uint8) for i in range(4)])
    state[2, 5, 7] = 255
    panels = observation_figure(state).axes
    assert [panel.get_title() for panel in panels] == ["3 steps ago", "2 steps ago", "1 step ago", "now"]
    for panel, frame in zip(panels, state, strict=True):
        (image,) = panel.get_images()
        np.testing.assert_array_equal(np.asarray(image.get_array()), frame)
        # Grey levels mean the same in every panel, so that a frame before the episode is black.
        assert image.get_clim() == (0, 255)
    edges = [panel.get_position().x0 for panel in panels]
    assert edges == sorted(edges)


@pytest.mark.parametrize("stack", [1, 2])
def test_there_are_as_many_panels_as_frames(stack: int) -> None:
    assert len(observation_figure(np.zeros((stack, 84, 84), np.uint8)).axes) == stack


def test_a_state_of_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 9\)"):
        observation_figure(np.zeros((1, 9), np.uint8))


def test_the_command_draws_the_state_after_some_random_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    for path, seed in ((first, "1"), (again, "1"), (other, "2")):
        assert pictures.main(["observation", "--steps", "30", "--seed", seed, "--out", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{first}: the observation in 1-1 after 30 steps\n")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    with Image.open(first) as image:
        assert image.width > 3 * image.height
        # Each quarter shows a frame, and time passes between them.
        pixels = np.asarray(image.convert("L"))
    quarters = np.split(pixels[:, : image.width // 4 * 4], 4, axis=1)
    assert all(quarter.std() > 10 for quarter in quarters)
    assert all((quarters[i] != quarters[i + 1]).any() for i in range(3))


def test_an_episode_that_ends_earlier_is_drawn_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, played = pictures.play("1-1", steps=10_000, seed=1)
    assert state.shape == (4, 84, 84)
    assert played < 10_000
    again, _ = pictures.play("1-1", steps=played, seed=1)
    np.testing.assert_array_equal(state, again)
    out = ["--out", str(tmp_path / "end.png")]
    assert pictures.main(["observation", "--steps", "10000", "--seed", "1", *out]) == 0
    assert f"after {played} steps, where the episode ended" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "a.png")]
    for options, message in (
        (["--stage", "9-1", *out], "9-1"),
        (["--steps", "-1", *out], "--steps is -1"),
        (["--seed", "-2", *out], "--seed is -2"),
        (["--out", str(tmp_path / "a.gif")], ".png"),
        (["--out", str(tmp_path / "absent" / "a.png")], "does not exist"),
    ):
        assert pictures.main(["observation", *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("driver.pictures: error: ")
        assert error.count("\n") == 1
        assert message in error
    assert list(tmp_path.iterdir()) == []
