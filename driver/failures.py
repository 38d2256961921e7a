"""What became of a role, in words."""

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from common.errors import DivergedError, UserError, first_line
from driver.calls import Failure
from driver.role_names import named


class RunFailedError(Exception):
    """The run cannot go on; the message is its cause in one line."""


def is_death(error: RayError) -> bool:
    """Whether another process may get on where this one did not: it is gone, or has raised an error.

    Not after what is the user's to mend, and would only come again.
    """
    return not isinstance(_origin(error), UserError | DivergedError)


def failed(failure: Failure) -> RunFailedError:
    """The end of the run by a role's failure."""
    return RunFailedError(f"{named(failure.role)} failed: {cause(failure.error)}")


def cause(error: RayError) -> str:
    """The reason in one line; Ray's own text is a page."""
    if isinstance(error, RayTaskError):
        origin = _origin(error)
        return f"{type(origin).__name__}: {first_line(origin)}"
    if isinstance(error, ActorDiedError) and "creation task" in str(error):
        return first_line("\n".join(reversed(str(error).splitlines())))
    if isinstance(error, RayActorError):
        return "its process is gone"
    return first_line(error)


def _origin(error: BaseException) -> BaseException:
    """What a role raised itself, or what another one that it called did."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return error
