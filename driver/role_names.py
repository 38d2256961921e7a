"""How the driver calls the roles' processes: a kind and, of actors and shards, a number."""

from typing import Final

ACTOR: Final = "actor"
SHARD: Final = "replay shard"
LEARNER: Final = "learner"
EVALUATOR: Final = "evaluator"


def actor_role(index: int) -> str:
    """An actor's."""
    return f"{ACTOR} {index}"


def shard_role(index: int) -> str:
    """A replay shard's."""
    return f"{SHARD} {index}"


def split(role: str) -> tuple[str, int]:
    """Kind and number of a role; 0 where there is one alone."""
    kind, _, number = role.rpartition(" ")
    return (kind, int(number)) if number.isdecimal() else (role, 0)


def named(role: str) -> str:
    """A role in a sentence: "actor 3", "the learner"."""
    return role if role[-1].isdecimal() else f"the {role}"
