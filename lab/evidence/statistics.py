"""Means over seeds, and differences of two rows seed by seed with a 95 % interval."""
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

#: 97.5 % quantile of Student's t, by degrees of freedom; with more, the last is a little too wide
T_QUANTILE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060, 9: 2.2622}


class Mean(NamedTuple):
    """Mean and sample standard deviation of n values; of one value there is no deviation."""
    mean: float
    std: float | None
    n: int


class Difference(NamedTuple):
    """Mean of n paired differences and its 95 % interval; of one pair there is no interval."""
    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def reading(self) -> str:
        """``'better'``, ``'worse'``, ``'no difference seen'``, or ``'undecided'`` with fewer than two pairs."""
        if self.low is None:
            return 'undecided'
        return 'better' if self.low > 0 else 'worse' if self.high < 0 else 'no difference seen'


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean of what there is; None of nothing."""
    if not values:
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(first: dict[int, float], second: dict[int, float], *, higher_is_better: bool = True
                      ) -> Difference | None:
    """``first - second`` over the seeds that both have.

    Args:
        first (dict[int, float]): Seed -> score.
        second (dict[int, float]): Seed -> score of the row that it is compared with.
        higher_is_better (bool): False turns the sign round, so that a positive difference is an improvement. Defaults
            to True.

    Returns:
        Difference or None: None without common seeds.
    """
    sign = 1 if higher_is_better else -1
    found = mean_of([sign * (first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())])
    if found is None or found.std is None:
        return found and Difference(found.mean, None, None, found.n)
    half = T_QUANTILE[min(found.n - 1, max(T_QUANTILE))] * found.std / math.sqrt(found.n)
    return Difference(found.mean, found.mean - half, found.mean + half, found.n)
