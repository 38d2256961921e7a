"""A shard's contents as a stream of bytes: taken in an instant, sent in pieces, read without running pickled code.

    8 bytes    MAGIC
    8 bytes    length of the tables, little-endian
    tables     a NumPy .npz archive without pickled objects: `header` (JSON) and one array per field of `Tables`
    the rest   the chunks' compressed frames, oldest chunk first

The first piece ends with the tables; every other one holds whole chunks.
"""

import io
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.compression import FRAMES_PER_BLOCK, is_intact
from common.types import EnvironmentSpec

MAGIC: Final = b"apexrep1"
_LENGTH: Final = struct.Struct("<Q")
_PIECE_BYTES: Final = 4 << 20
_MOST_RETURN: Final = 1e30  # far beyond any environment's; a batch's loss is a finite float32 still
# What NumPy and zipfile raise for bytes that are no archive of arrays.
_UNREADABLE: Final = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


class Tables(NamedTuple):
    """All of a shard's contents but the frames: T transitions and C chunks, oldest first."""

    a_tm1: NDArray[np.int32]  # [T]
    r_t: NDArray[np.float32]  # [T]
    discount_t: NDArray[np.float32]  # [T]
    steps: NDArray[np.uint8]  # [T]
    weight_version: NDArray[np.int32]  # [T]
    tree: NDArray[np.float64]  # [T], priority ** alpha
    length: NDArray[np.int32]  # [C], transitions
    first_state: NDArray[np.int32]  # [C]
    num_blocks: NDArray[np.int32]  # [C]
    block_ends: NDArray[np.int32]  # [sum of num_blocks], each chunk's own


_OF_TRANSITIONS: Final = ("a_tm1", "r_t", "discount_t", "steps", "weight_version", "tree")
_OF_CHUNKS: Final = ("length", "first_state", "num_blocks")
_DTYPES: Final = dict(zip(Tables._fields, ("i4", "f4", "f4", "u1", "i4", "f8", "i4", "i4", "i4", "i4"), strict=True))


class ShardSnapshot(NamedTuple):
    """A shard's contents at one moment.

    Attributes:
        header: plain JSON values of the shard's own.
        tables: see there; copies.
        frames: of each chunk; immutable, shared with the shard.
    """

    header: dict[str, Any]
    tables: Tables
    frames: Sequence[bytes]


def file_name(shard: int) -> str:
    """What a shard's file in a checkpoint is called."""
    return f"replay-{shard}.bin"


def write_snapshot(snapshot: ShardSnapshot, file: BinaryIO) -> None:
    """Writes the stream to a file."""
    file.writelines(pieces(snapshot))


def pieces(snapshot: ShardSnapshot) -> Iterator[bytes]:
    """The stream, some megabytes at a time."""
    yield _head(snapshot)
    yield from _grouped(snapshot.frames)


def pieces_of_file(file: BinaryIO) -> Iterator[bytes]:
    """The stream of a file, cut as `pieces` does.

    Raises:
        ValueError: it is none, or cut short.
    """
    start = file.read(len(MAGIC) + _LENGTH.size)
    if len(start) < len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
        raise ValueError("it does not begin as a replay snapshot does")
    head = start + _exactly(file, _LENGTH.unpack(start[len(MAGIC) :])[0])
    yield head
    yield from _grouped(_exactly(file, size) for size in Assembly(head).chunk_bytes)


def read_snapshot(file: BinaryIO) -> ShardSnapshot:
    """The snapshot in a file.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    stream = pieces_of_file(file)
    assembly = Assembly(next(stream))
    for piece in stream:
        assembly.add(piece)
    return assembly.finish()


class Assembly:
    """Puts the pieces of a stream together again.

    Args:
        head: the first piece.

    Raises:
        ValueError: it is damaged; the message says how.
    """

    def __init__(self, head: bytes) -> None:
        self._header, self._tables = _parse_head(head)
        last = np.cumsum(self._tables.num_blocks) - 1
        self.chunk_bytes: list[int] = self._tables.block_ends[last].tolist()
        self._frames: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Takes the next piece.

        Raises:
            ValueError: it does not end with a chunk.
        """
        start = 0
        while start < len(piece) and len(self._frames) < len(self.chunk_bytes):
            end = start + self.chunk_bytes[len(self._frames)]
            self._frames.append(piece[start:end])
            start = end
        if start != len(piece):
            raise ValueError("the frames are not as long as the tables say")

    def finish(self) -> ShardSnapshot:
        """What was sent.

        Raises:
            ValueError: pieces are missing.
        """
        if len(self._frames) != len(self.chunk_bytes):
            raise ValueError(f"the frames of {len(self.chunk_bytes) - len(self._frames)} chunks are missing")
        return ShardSnapshot(self._header, self._tables, self._frames)


def newest(snapshot: ShardSnapshot, capacity: int) -> ShardSnapshot:
    """With the newest chunks alone that fit."""
    held = np.cumsum(snapshot.tables.length[::-1], dtype=np.int64)[::-1]  # [C], transitions from each chunk on
    return _chosen(snapshot, held <= capacity)


def undamaged(snapshot: ShardSnapshot) -> tuple[ShardSnapshot, int]:
    """Without the chunks that have a damaged block of frames, and how many those were.

    A file's checksum does not tell: what was damaged in the shard's memory was written as it was.
    """
    tables = snapshot.tables
    ends = np.split(tables.block_ends, np.cumsum(tables.num_blocks))[:-1]
    whole = np.array([_is_whole(*chunk) for chunk in zip(snapshot.frames, ends, strict=True)], bool)
    return _chosen(snapshot, whole), int((~whole).sum())


def check_transitions(tables: Tables, spec: EnvironmentSpec, priorities: tuple[float, float]) -> None:
    """Whether the transitions are ones that actors could have sent; frames are not decompressed.

    Args:
        tables: of the transitions.
        spec: the environment's.
        priorities: the least and the most that one can have in the sum tree: a sum over others might overflow.

    Raises:
        ValueError: with the reason.
    """
    for name in ("r_t", "discount_t", "tree"):
        if not np.isfinite(getattr(tables, name)).all():
            raise ValueError(f"its table {name} is not finite")
    bounds = (
        ("a_tm1", 0, spec.num_actions - 1),
        ("r_t", -_MOST_RETURN, _MOST_RETURN),
        ("tree", *priorities),
        ("discount_t", 0, 1),
        ("steps", 1, np.iinfo(np.uint8).max),
        ("first_state", 0, spec.frame_stack - 1),
    )
    for name, low, high in bounds:
        array = getattr(tables, name)
        if (array < low).any() or (array > high).any():
            raise ValueError(f"its table {name} is not within {low} … {high}")
    _check_blocks(tables)


def _chosen(snapshot: ShardSnapshot, kept: NDArray[np.bool_]) -> ShardSnapshot:
    """With these of its chunks alone, bool [C]."""
    tables = snapshot.tables
    rows = {
        **dict.fromkeys(_OF_TRANSITIONS, np.repeat(kept, tables.length)),
        **dict.fromkeys(_OF_CHUNKS, kept),
        "block_ends": np.repeat(kept, tables.num_blocks),
    }
    chosen = Tables(**{name: getattr(tables, name)[of_table] for name, of_table in rows.items()})
    return snapshot._replace(tables=chosen, frames=list(itertools.compress(snapshot.frames, kept)))


def _is_whole(frames: bytes, ends: NDArray[np.int32]) -> bool:
    data = memoryview(frames)
    return all(is_intact(data[start:end]) for start, end in itertools.pairwise([0, *ends.tolist()]))


def _head(snapshot: ShardSnapshot) -> bytes:
    buffer = io.BytesIO()
    header = np.frombuffer(json.dumps(snapshot.header).encode(), np.uint8)
    np.savez(buffer, header=header, **snapshot.tables._asdict())
    tables = buffer.getvalue()
    return MAGIC + _LENGTH.pack(len(tables)) + tables


def _grouped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole chunks joined, some megabytes at a time."""
    group: list[bytes] = []
    size = 0
    for frames in chunks:
        group.append(frames)
        size += len(frames)
        if size >= _PIECE_BYTES:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def _exactly(file: BinaryIO, size: int) -> bytes:
    try:
        data = file.read(size)
    except (OverflowError, MemoryError):  # a damaged length
        data = b""
    if len(data) != size:
        raise ValueError("it is cut short")
    return data


def _parse_head(head: bytes) -> tuple[dict[str, Any], Tables]:
    try:
        with np.load(io.BytesIO(head[len(MAGIC) + _LENGTH.size :]), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("header", *Tables._fields)}
        header = json.loads(arrays.pop("header").tobytes())
    except _UNREADABLE as error:
        raise ValueError(f"its tables cannot be read ({error})") from None
    tables = Tables(**arrays)
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    _check(tables)
    return header, tables


def _check(tables: Tables) -> None:
    """Whether the tables agree with one another; what they say of transitions is not looked at."""
    for name, dtype in _DTYPES.items():
        array = getattr(tables, name)
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"its table {name} is {array.dtype} {array.shape}")
    for names in (_OF_TRANSITIONS, _OF_CHUNKS):
        if len({len(getattr(tables, name)) for name in names}) != 1:
            raise ValueError("its tables are not equally long")
    if (tables.length < 1).any() or tables.length.sum(dtype=np.int64) != len(tables.a_tm1):
        raise ValueError("its chunks do not hold its transitions")
    if (tables.num_blocks < 1).any() or tables.num_blocks.sum(dtype=np.int64) != len(tables.block_ends):
        raise ValueError("its chunks do not hold its blocks")
    first = np.zeros(len(tables.block_ends), bool)
    first[np.cumsum(tables.num_blocks) - tables.num_blocks] = True
    previous = np.where(first, 0, np.roll(tables.block_ends, 1))
    if (tables.block_ends <= previous).any():
        raise ValueError("the ends of its blocks do not increase")


def _check_blocks(tables: Tables) -> None:
    """Whether each chunk has the blocks of frames that its transitions need."""
    if not len(tables.length):
        return
    starts = np.cumsum(tables.length) - tables.length
    place = np.arange(len(tables.steps)) - np.repeat(starts, tables.length)  # in the chunk, [T]
    frames = tables.first_state + np.maximum.reduceat(place + tables.steps, starts) + 1  # [C]
    if (np.ceil(frames / FRAMES_PER_BLOCK) != tables.num_blocks).any():
        raise ValueError("a chunk of its has not the blocks of frames that its transitions need")
