"""What a role's failure means for the run, and how it is told."""

import pytest
from ray.exceptions import OwnerDiedError, RayTaskError

from common.errors import DivergedError, UserError
from driver.failures import cause, is_death


def raised(error: Exception) -> RayTaskError:
    """As the driver gets it, which is of the error's own class too."""
    given: RayTaskError = RayTaskError("ray::RemoteActor.run", "a page of text", error).as_instanceof_cause()
    return given


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "MemoryError: MemoryError"),
        (OSError(24, "Too many open files"), "OSError: [Errno 24] Too many open files"),
        (raised(ValueError("chunk without transitions\nmore")), "ValueError: chunk without transitions"),
        (OwnerDiedError("00" * 28, None, ""), "OwnerDiedError: Failed to retrieve object"),
    ],
    ids=["memory", "files", "a shard's", "lost"],
)
def test_an_error_is_a_death_and_told_by_its_first_line(error: Exception, line: str) -> None:
    assert is_death(raised(error))
    assert cause(raised(error)).startswith(line)


@pytest.mark.parametrize("error", [UserError("give another number"), DivergedError("the loss is not finite")])
def test_what_would_only_come_again_is_none(error: Exception) -> None:
    assert not is_death(raised(error))
