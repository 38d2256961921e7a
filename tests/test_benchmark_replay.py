"""The replay's benchmark: recordings, the chunks made of them, our own buffer, and what processes take."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import replay
from benchmarks.machine import ROOT
from benchmarks.processes import cpu_seconds, resident_memory
from benchmarks.replay_codecs import codecs, measure
from benchmarks.replay_contestants import CONTESTANTS
from benchmarks.replay_frames import Recording, build_chunks, load, save
from common.errors import UserError
from tests.replay_chunks import chunk_frames


def recordings(lengths: tuple[int, ...] = (100, 3)) -> list[Recording]:
    """Of frames that all differ."""
    made, first = [], 0
    for length in lengths:
        frames = np.zeros((length + 1, 84, 84), np.uint8)
        numbers = np.arange(first, first + length + 1)
        frames[:, 0, 0], frames[:, 0, 1] = numbers % 251 + 1, numbers // 251 + 1
        made.append(Recording(frames, np.arange(length) % 5, np.ones(length, np.float32)))
        first += length + 1
    return made


def test_recordings_survive_their_file(tmp_path: Path) -> None:
    save(tmp_path / "new" / "recordings.npz", recordings())
    for loaded, recording in zip(load(tmp_path / "new" / "recordings.npz"), recordings(), strict=True):
        for got, wanted in zip(vars(loaded).values(), vars(recording).values(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_file_that_holds_no_recordings_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recordings.npz"
    path.write_text("nothing")
    with pytest.raises(UserError, match="holds no recordings"):
        load(path)
    assert replay.main(["--quick", "--no-peers", "--recordings", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_chunks_hold_the_recordings_frames() -> None:
    chunks = list(build_chunks(recordings()))
    assert sum(map(len, chunks)) == 103
    np.testing.assert_array_equal(chunk_frames(chunks[-1], (84, 84)), recordings()[1].frames)


def test_states_are_stacked_and_padded() -> None:
    states = recordings()[1].states(4)
    frames = recordings()[1].frames
    assert states.shape == (4, 4, 84, 84)
    assert not states[0, :3].any()
    np.testing.assert_array_equal(states[0, 3], frames[0])
    np.testing.assert_array_equal(states[3], frames)


def test_our_contestant_gives_back_the_recordings_states() -> None:
    make, _ = CONTESTANTS["apex-mario"]
    ours = make(1_000)
    for recording in recordings():
        ours.add(ours.prepare(recording))
    batch, s_tm1, s_t = ours.sample(512)
    known = {state.tobytes() for recording in recordings() for state in recording.states(4)}
    assert {state.tobytes() for state in (*s_tm1, *s_t)} <= known
    ours.update((batch, s_tm1, s_t), np.where(batch.ids == 7, 1, 0).astype(np.float32))


def test_one_buffer_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    save(tmp_path / "recordings.npz", recordings((200, 100)))
    command = [sys.executable, "-m", "benchmarks.replay_peers", "apex-mario", "--recordings"]
    command += [str(tmp_path / "recordings.npz"), "--memory-gb", "0.0006", "--seconds", "0.1"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    figures = json.loads(answer.stdout)
    assert figures["transitions"] == 500
    assert figures["adds_per_s"] > 0
    assert figures["samples_per_s"] > 0


def test_every_codec_gives_the_frames_back() -> None:
    chunks = [recordings()[0].frames]
    for write, read in codecs().values():
        assert measure(write, read, 4, chunks)["bytes_per_frame"] < 84 * 84


def test_ratios_of_bytes_say_how_many_times_fewer() -> None:
    shard = {
        "transitions": 100,
        "filled": {"private": 70_000, "files": 20_000, "shared": 10_000},
        "afterwards": {"private": 100_000, "files": 20_000, "shared": 40_000},
        "apex": {"inserts_per_s": 6_250.0, "samples_per_s": 9_700.0, "shard_cpu": 0.25},
        "fastest": {"inserts_per_s": 25_000.0, "samples_per_s": 9_700.0},
    }
    rows = {row["name"]: row for row in replay.shard_rows(shard)}
    assert rows["inserts, paced"]["ratio"] == 0.5
    assert (rows["memory of the filled process"]["figure"], rows["memory of the filled process"]["ratio"]) == (
        1000,
        1.2,
    )
    assert rows["the same without Ray's object store"]["figure"] == 1200
    ours = {"bytes_per_transition": 1_000.0, "adds_per_s": 10.0, "samples_per_s": 30.0}
    other = {"bytes_per_transition": 8_000.0, "adds_per_s": 20.0, "samples_per_s": 10.0}
    ratios = [row["ratio"] for row in replay.peer_rows({"apex-mario": ours, "x": other, "not installed": None})]
    assert ratios == [8.0, 0.5, 3.0]


def test_memory_and_cpu_time_of_a_process_are_seen() -> None:
    before, cpu_before = resident_memory(os.getpid()), cpu_seconds(os.getpid())
    ballast = np.ones(50_000_000, np.uint8)
    deadline = time.process_time() + 0.2
    while time.process_time() < deadline:
        pass
    assert resident_memory(os.getpid()).private - before.private == pytest.approx(len(ballast), rel=0.2)
    assert cpu_seconds(os.getpid()) - cpu_before > 0.15
