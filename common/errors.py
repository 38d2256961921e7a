"""Errors as a user sees them: in a single line."""


def first_line(error: object) -> str:
    """The first line of an error's text that says something, its type where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class UserError(Exception):
    """A mistake that the user can mend: the programs print it as one line and exit with status 2.

    The message says what is wrong and what to do.
    """


class DivergedError(RuntimeError):
    """The loss or its gradient is not finite; from where training was, it would come to that again."""
