"""The one exception type that a user sees as a single line."""


class UserError(Exception):
    """A mistake that the user can mend: the programs print it as one line and exit with status 2.

    The message says what is wrong and what to do.
    """
