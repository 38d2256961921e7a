"""Whether a run's checkpoints can be mirrored, before it begins; and the mirror's start."""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from common.errors import UserError
from driver.checkpoints import Start
from driver.copies import Ownership, check_writable, find_copies, identity, refuse_others, set_aside_newer
from driver.mirror import Mirror
from driver.run_directory import RunDirectory
from driver.store import Store, StoreError, open_store

_OPTION: Final = "--checkpoint.uri"
_PATIENCE_S: Final = 60.0

_Result = TypeVar("_Result")


def check_mirror(uri: str, run: RunDirectory, step: int | None, *, take_back: bool) -> Store:
    """Refuses a URI that cannot be written, or where other checkpoints are; nothing is left there.

    Args:
        uri: the setting.
        run: the run's folder.
        step: updates of the checkpoint that a resumed run starts from, 0 for none; None for a new run.
        take_back: whether what is newer there is to be given up for it.

    Raises:
        UserError: with the reason.
    """
    store = open_store(_OPTION, uri)
    owner = None if step is None else identity(run.metadata_path)

    def check() -> None:
        check_writable(store)
        refuse_others(store, _OPTION, owner, step or 0, take_back=take_back)

    _limited(store, check)
    return store


def start_mirror(store: Store, run: RunDirectory, begin: Start, keep: int) -> Mirror:
    """Takes the URI for this session of the run, and begins with what that starts from, if it is not there yet.

    To be called under the run's lock. What is newer at the URI is set aside, with a remark in `begin`.

    Raises:
        UserError: the URI cannot be written any more.
    """
    ownership = Ownership(store, identity(run.metadata_path))

    def take() -> tuple[list[str], bool]:
        ownership.take()
        aside = set_aside_newer(store, begin.step)
        return aside, any(copy.complete and copy.step == begin.step for copy in find_copies(store))

    aside, is_there = _limited(store, take)
    begin.remarks.extend(
        f"the newer checkpoint {store.uri}/{name} is set aside: its manifest has another name now" for name in aside
    )
    mirror = Mirror(store, run, ownership, keep)
    if begin.data is not None and not is_there:
        mirror.start(begin.data.path)
    return mirror


def _limited(store: Store, action: Callable[[], _Result]) -> _Result:
    """What the action returns; a file system that does not answer is given up, and left to a thread."""
    results: list[_Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(action())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="mirror-check")
    thread.start()
    thread.join(_PATIENCE_S)
    if thread.is_alive():
        raise UserError(f"{_OPTION} {store.uri} does not answer within {_PATIENCE_S:g} s; leave it out, or mend it")
    if errors and isinstance(errors[0], StoreError):
        raise UserError(f"{_OPTION} {store.uri} cannot be written: {errors[0]}") from None
    if errors:
        raise errors[0]
    return results[0]
