"""TensorBoard's file of events.

PyTorch's `SummaryWriter` writes in a thread of its own, which a full disk ends for good, with a traceback. The figures
of a run are few, so they are written at once and by the driver itself.
"""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from driver.run_file import RunFile

_VERSION = "brain.Event:2"  # which TensorBoard expects of a file's first event


class EventFile:
    """A new file of events in a run's folder.

    Args:
        folder: the run's.
        warn: takes a line for the user when the file cannot be written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        # TensorBoard sorts a folder's files by name, and takes each one up where the one before it ends.
        path = folder / f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
        self._file = RunFile(path, warn, header=_record(Event(wall_time=time.time(), file_version=_VERSION)))

    def add(self, summary: Summary, step: int) -> None:
        """Appends figures, texts or images at a place on the horizontal axis."""
        self._file.append(_record(Event(wall_time=time.time(), step=step, summary=summary)))


def _record(event: Event) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
