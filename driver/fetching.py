"""`--resume URI`: the newest whole copy of a run's checkpoints becomes a run directory on this machine."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from common.errors import UserError
from driver.copies import DamagedCopyError, fetch, find_copies
from driver.run_directory import RunDirectory
from driver.store import Store, StoreError, open_store
from learner.checkpoint import newest_checkpoint

_OPTION: Final = "--resume"
_PREFIX: Final = ".fetching-"


class Fetched(NamedTuple):
    """A run directory that was made from a copy."""

    path: Path
    copy: str  # its name at the URI
    remarks: list[str]  # for the user


@contextlib.contextmanager
def fetched_run(uri: str, parent: Path) -> Iterator[Fetched]:
    """Fetches a run into a temporary folder below `parent`, from where the caller may rename it; else it is removed.

    Raises:
        UserError: nothing can be fetched from there, with the reason.
    """
    store = open_store(_OPTION, uri)
    folder = parent / f"{_PREFIX}{secrets.token_hex(8)}"
    made = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        copy, remarks = _fetch_newest(store, folder)
        yield Fetched(folder, copy, remarks)
    except StoreError as error:
        raise UserError(f"{_OPTION} {uri} cannot be read: {error}") from None
    except OSError as error:
        raise UserError(f"{_OPTION} {uri} cannot be fetched into {parent}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # in use
                path.rmdir()


def _fetch_newest(store: Store, folder: Path) -> tuple[str, list[str]]:
    """Makes the newest whole copy in a folder; its name, and a line on each one that was passed over.

    The list is asked for anew after each failure: the run that made the copies may still be at work, and remove them.
    """
    remarks: list[str] = []
    tried: set[str] = set()
    while True:
        left = [copy for copy in find_copies(store) if copy.name not in tried]
        if not left:
            raise UserError(_nothing_found(store.uri, remarks))
        name = left[0].name
        tried.add(name)
        try:
            if not left[0].complete:
                raise DamagedCopyError("it is not complete")
            folder.mkdir(parents=True)
            fetch(store, name, folder)
            _check_run(folder)
            return name, remarks
        except DamagedCopyError as error:
            remarks.append(f"warning: passing over {store.uri}/{name}: {error}")
            shutil.rmtree(folder, ignore_errors=True)


def _check_run(folder: Path) -> None:
    """Raises DamagedCopyError unless the folder is a run with a whole checkpoint."""
    run = RunDirectory(folder)
    if not run.holds_run or not run.metadata_path.exists():
        raise DamagedCopyError("it holds no run")
    try:
        if newest_checkpoint(run.checkpoints, lambda text: None) is None:
            raise DamagedCopyError("it holds no checkpoint")
    except UserError:
        raise DamagedCopyError("the checkpoint in it is damaged") from None


def _nothing_found(uri: str, remarks: list[str]) -> str:
    if not remarks:
        return f"{_OPTION} {uri}: there is no run; name what --checkpoint.uri was"
    why = remarks[0].removeprefix("warning: passing over ")
    return f"{_OPTION} {uri}: no copy of a checkpoint there is whole ({why}); resume the run where its folder is"
