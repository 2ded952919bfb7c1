"""What a limit on the length of a text costs: pairs that are cut, pairs that are dropped; and where one is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from peo_bench.errors import UsageError


def setting_of(kind: str) -> str:
    """Return where the limit of trainings of this kind is set."""
    return "reward_model.max_length" if kind == "reward-model" else "training.max_length"


def refuse_unreadable(what: str, read: Iterable[int], context: int | None, kind: str = "aspect") -> None:
    """Raise `UsageError` if a training has the model read texts of more tokens than its `context`; None is no bound.

    `what` they are is named, and the setting that limits this `kind` of training.
    """
    longest = max(read, default=0)
    if context is not None and longest > context:
        raise UsageError(
            f"{what}: texts of up to {longest} tokens, more than the {context} that the model reads: type "
            f"--set {setting_of(kind)}={context}"
        )


@dataclass(frozen=True)
class Lengths:
    """Rows of a training by what `limit` tokens did to them.

    `whole` rows fit; `cut` ones lost the end of an answer, the token that ends it included; `dropped` ones were not
    trained on.
    """

    whole: int
    cut: int
    dropped: int
    limit: int

    @staticmethod
    def of(longest: Sequence[int], limit: int, dropped: int) -> Lengths:
        """Count rows of `longest` tokens each, in the longer of their texts, beside those `dropped`.

        >>> Lengths.of([3, 9, 4], limit=4, dropped=2)
        Lengths(whole=2, cut=1, dropped=2, limit=4)
        """
        cut = sum(length > limit for length in longest)
        return Lengths(len(longest) - cut, cut, dropped, limit)

    def __add__(self, other: Lengths) -> Lengths:
        """Return the counts of both trainings together; their limits are the same."""
        return Lengths(self.whole + other.whole, self.cut + other.cut, self.dropped + other.dropped, self.limit)

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)
