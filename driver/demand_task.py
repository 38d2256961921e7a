"""A task that is sent to nodes as it is."""


def nothing() -> None:
    """Needs a core, does nothing with it."""
