"""Whether the actors of a resumed run really go on with the checkpoint's episodes."""

from collections.abc import Callable, Iterable


class TakenOver:
    """Says once how many running episodes of the checkpoint the actors have taken over, by what they report.

    Args:
        say: takes one line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._missing: set[int] = set()  # actors that have not reported
        self._episodes = 0
        self._environments = 0

    def expect(self, actors: Iterable[int], environments: int) -> None:
        """Takes note of the actors that were given episodes, and of the environments that all actors have."""
        self._missing, self._environments = set(actors), environments

    def take(self, actor: int, episodes: int) -> None:
        """An actor reports what it took over."""
        if actor in self._missing:
            self._episodes += episodes
            self.leave_out(actor)

    def leave_out(self, actor: int) -> None:
        """An actor is gone, with the episodes that it was given if it had not reported them."""
        if actor in self._missing:
            self._missing.discard(actor)
            if not self._missing:
                self.tell()

    def tell(self) -> None:
        """Says what is known, where it was not said yet."""
        if self._episodes:
            self._say(f"the actors' episodes go on where they were ({self._episodes} of {self._environments})")
        self._episodes, self._missing = 0, set()
