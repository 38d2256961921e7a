"""Files that a run appends to: no disk that fills up ends the run or leaves half a line."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from driver.metrics import Metrics
from driver.run_directory import RunDirectory
from driver.run_file import RunFile


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def room(size: int) -> Iterator[None]:
    """The kernel refuses larger files meanwhile, after it has taken what fits: as a disk that fills up does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_within_a_line_leaves_whole_lines(tmp_path: Path) -> None:
    path, said = tmp_path / "lines", list[str]()
    file = RunFile(path, said.append)
    file.append(b"first\n")
    with room(9):
        file.append(b"second\n")
    assert path.read_bytes() == b"first\n"
    file.append(b"third\n")
    assert path.read_bytes() == b"first\nthird\n"
    assert said == [
        f"warning: {path} cannot be written (File too large): "
        "training goes on, and what happens until it can be is missing there",
        f"{path} can be written again",
    ]


def test_the_warning_comes_again_every_five_minutes(tmp_path: Path) -> None:
    path, said, clock = tmp_path / "full", list[str](), Clock()
    path.symlink_to("/dev/full")
    file = RunFile(path, said.append, clock=clock)
    file.append(b"x\n")
    told = len(said)
    for _ in range(900):
        clock.now += 1
        file.append(b"x\n")
    assert told == 1
    assert len(said) == 1 + 3
    assert all("No space left on device" in line for line in said)


def test_a_folder_in_its_place_is_said_and_tried_again(tmp_path: Path) -> None:
    path, said = tmp_path / "lines", list[str]()
    path.mkdir()
    file = RunFile(path, said.append, header=b"heading\n")
    file.append(b"lost\n")
    path.rmdir()
    file.append(b"kept\n")
    assert path.read_bytes() == b"heading\nkept\n"
    assert [line.partition("lines ")[2][:9] for line in said] == ["cannot be", "can be wr"]


@pytest.mark.parametrize("found", [b"whole\n", b"whole\nhal", b"hal", b"", b"x" * 5_000 + b"\n" + b"hal"])
def test_half_a_line_of_a_power_cut_goes_and_whole_ones_stay(found: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(found)
    RunFile(path, pytest.fail).append(b"next\n")
    assert path.read_bytes() == found[: found.rfind(b"\n") + 1] + b"next\n"


def figures(run: RunDirectory) -> tuple[list[int], list[str]]:
    """The steps at which TensorBoard finds the figure, and the lines of progress."""
    events = EventAccumulator(str(run.path))
    events.Reload()
    steps = [event.step for event in events.Scalars("learner/loss")] if events.Tags()["scalars"] else []
    return steps, run.progress_path.read_text().splitlines()


def test_figures_go_on_after_a_full_disk_and_what_was_written_before_stays(tmp_path: Path) -> None:
    run, said = RunDirectory(tmp_path), list[str]()
    metrics = Metrics(run, said.append)
    for step in range(1, 10):
        with room(0 if step % 3 == 2 else resource.RLIM_INFINITY):
            metrics.scalars({"learner/loss": 0.5, "learner/q_mean": float("nan")}, step)
            metrics.progress({"env_steps": step})
    written = [1, 3, 4, 6, 7, 9]
    assert figures(run) == (written, [f'{{"env_steps": {step}}}' for step in written])
    assert len(said) == 2 * 2 * 3


def test_text_and_animation_are_found(tmp_path: Path) -> None:
    metrics = Metrics(RunDirectory(tmp_path), pytest.fail)
    metrics.text("config", "    seed: 1", 0)
    metrics.animation("eval/episode", b"GIF89a...", (240, 256), 7)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tensors("config/text_summary")[0].tensor_proto.string_val == [b"    seed: 1"]
    (image,) = events.Images("eval/episode")
    assert (image.step, image.encoded_image_string, image.height, image.width) == (7, b"GIF89a...", 240, 256)
