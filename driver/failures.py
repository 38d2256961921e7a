"""What became of a role, in words."""

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from common.errors import first_line
from driver.calls import Failure


class RunFailedError(Exception):
    """The run cannot go on; the message is its cause in one line."""


def split(role: str) -> tuple[str, int]:
    """Kind and number of a role; 0 where there is one alone."""
    kind, _, number = role.rpartition(" ")
    return (kind, int(number)) if number.isdecimal() else (role, 0)


def named(role: str) -> str:
    """A role in a sentence: "actor 3", "the learner"."""
    return role if role[-1].isdecimal() else f"the {role}"


def is_death(error: RayError) -> bool:
    """Whether a role's process is gone or has lost something with another's; else it failed by itself."""
    return isinstance(error.cause, RayError) if isinstance(error, RayTaskError) else True


def failed(failure: Failure) -> RunFailedError:
    """The end of the run by a role's failure."""
    return RunFailedError(f"{named(failure.role)} failed: {cause(failure.error)}")


def cause(error: RayError) -> str:
    """The reason in one line; Ray's own text is a page."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {first_line(error.cause)}"
    if isinstance(error, ActorDiedError) and "creation task" in str(error):
        return first_line("\n".join(reversed(str(error).splitlines())))
    if isinstance(error, RayActorError):
        return "its process is gone"
    return first_line(error)
