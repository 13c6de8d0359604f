"""Linear classification in closed form: ridge regression on frozen features, without an optimiser or a seed.

The regression is from standardised features, with a bias, to one-hot labels. It needs only sums over
images, so the images need not be in memory together, and any number of penalties costs one eigendecomposition.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserInputError

#: Half decades from 1e-6 to 10 (our choice). Features are standardised, so that 1 is as much as a feature's variance.
PENALTIES = tuple(10 ** (half / 2) for half in range(-12, 3))
HELD_OUT = 10  # every tenth is held out to choose the penalty


class RidgeSums:
    """The sums over examples that a ridge regression from x (D numbers) to y (C numbers) follows from, in float64.

    Args:
        features (int): D.
        targets (int): C.
    """

    def __init__(self, features: int, targets: int) -> None:
        self.number = 0
        self.x = torch.zeros(features, dtype=torch.float64)  # (D,)
        self.y = torch.zeros(targets, dtype=torch.float64)  # (C,)
        self.xx = torch.zeros(features, features, dtype=torch.float64)  # (D, D)
        self.xy = torch.zeros(features, targets, dtype=torch.float64)  # (D, C)
        self.yy = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add n examples: x (n, D) and y (n, C)."""
        x, y = x.double(), y.double()  # (n, D), (n, C)
        self.number += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.square().sum()

    def __add__(self, other: 'RidgeSums') -> 'RidgeSums':
        """The sums over the examples of both."""
        total = RidgeSums(len(self.x), len(self.y))
        for name in vars(total):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    @property
    def finite(self) -> bool:
        """Whether all examples were finite."""
        return bool(self.xx.isfinite().all() and self.xy.isfinite().all())

    def fit(self, penalties: Sequence[float]) -> Tensor:
        """The regressions on all examples: the minima of ``mean |y - W z - b|^2 + penalty |W|^2``, z standardised x.

        Args:
            penalties (Sequence[float]): P of them.

        Returns:
            Tensor: (P, 1 + D, C) float64, for ``[1, x] @ weight``; the bias stands first. A feature that is constant
            has no weight.
        """
        mean_x, mean_y = self.x / self.number, self.y / self.number  # (D,), (C,)
        covariance = self.xx / self.number - mean_x[:, None] * mean_x  # (D, D)
        variance = covariance.diagonal()  # (D,)
        varies = variance > 1e-12 * (self.xx.diagonal() / self.number).clamp_min(1e-200)  # (D,), above rounding
        scale = torch.where(varies, variance.clamp_min(1e-200).rsqrt(), 0.)  # (D,), 1 / standard deviation
        values, vectors = torch.linalg.eigh(scale[:, None] * covariance * scale)  # (D,), (D, D)
        joint = scale[:, None] * (self.xy / self.number - mean_x[:, None] * mean_y)  # (D, C)
        rotated = vectors.T @ joint  # (D, C)
        weights = []
        for penalty in penalties:
            weight = scale[:, None] * (vectors @ (rotated / (values.clamp_min(0) + penalty)[:, None]))  # (D, C)
            weights.append(torch.cat([(mean_y - mean_x @ weight)[None], weight]))  # (1 + D, C)
        return torch.stack(weights)  # (P, 1 + D, C)

    def errors(self, weights: Tensor) -> Tensor:
        """Mean squared error of regressions (P, 1 + D, C) on these examples, summed over targets: (P,)."""
        ones = torch.tensor([float(self.number)], dtype=torch.float64)
        xx = torch.cat([torch.cat([ones, self.x])[None],
                        torch.cat([self.x[:, None], self.xx], dim=1)])  # (1 + D, 1 + D), of [1, x]
        xy = torch.cat([self.y[None], self.xy])  # (1 + D, C)
        squared = (weights * (xx @ weights - 2 * xy)).sum((1, 2)) + self.yy  # (P,)
        return squared / self.number


def choose_and_fit(fitted: RidgeSums, held_out: RidgeSums, penalties: Sequence[float] = PENALTIES) -> Tensor:
    """The regression on all examples with the penalty that does best from ``fitted`` to ``held_out``.

    The best penalty has the smallest squared error, which, unlike accuracy, is smooth in the penalty.

    Args:
        fitted (RidgeSums): Of most examples.
        held_out (RidgeSums): Of the others.
        penalties (Sequence[float]): Each positive. Defaults to :data:`PENALTIES`.

    Returns:
        Tensor: (1 + D, C) float64, see :meth:`RidgeSums.fit`.

    Raises:
        UserInputError: If a penalty is not positive, there is none, or one of the two has no example.
    """
    if not penalties or not all(penalty > 0 for penalty in penalties):
        raise UserInputError(f'Penalties of a ridge regression are positive numbers, not {tuple(penalties)!r}.')
    if not fitted.number or not held_out.number:
        raise UserInputError(f'{fitted.number} examples to fit and {held_out.number} to choose the penalty on are too '
                             f'few; give at least one of each.')
    best = int(held_out.errors(fitted.fit(penalties)).argmin())
    return (fitted + held_out).fit([penalties[best]])[0]  # (1 + D, C)


def predict(weight: Tensor, features: Tensor) -> Tensor:
    """Scores of a regression (1 + D, C) for features (..., D): (..., C) float64."""
    return features.double() @ weight[1:] + weight[0]  # (..., C)


def ridge_accuracy(train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, *,
                   num_classes: int, penalties: Sequence[float] = PENALTIES) -> float:
    """Top-1 accuracy of ridge regression to one-hot labels; the same numbers give the same result.

    The penalty is chosen on a tenth of the training images, every tenth of the list sorted by class; then all are
    fitted.

    Args:
        train_features (Tensor): (n, D).
        train_labels (Tensor): (n,) int64 in [0, num_classes).
        test_features (Tensor): (m, D).
        test_labels (Tensor): (m,) int64.
        num_classes (int): C.
        penalties (Sequence[float]): Relative to a standardised feature's variance. Defaults to :data:`PENALTIES`.

    Returns:
        float: Percent of the test images; nan if a feature is not finite, as after a diverged run.

    Raises:
        UserInputError: If there are fewer than 2 training images, or a penalty is not positive.
    """
    if not (train_features.isfinite().all() and test_features.isfinite().all()):
        return float('nan')
    train_features, train_labels = train_features.cpu(), train_labels.cpu()  # (n, D), (n,)
    order = train_labels.argsort(stable=True)  # (n,)
    kept, held_out = order[torch.arange(len(order)) % HELD_OUT != 0], order[::HELD_OUT]
    sums = []
    for chosen in (kept, held_out):
        sums.append(RidgeSums(train_features.shape[1], num_classes))
        for part in chosen.split(8192):  # so that only a part is ever in float64
            sums[-1].add(train_features[part], F.one_hot(train_labels[part], num_classes))
    scores = predict(choose_and_fit(*sums, penalties), test_features.cpu())  # (m, C)
    return 100 * float((scores.argmax(1) == test_labels.cpu()).double().mean())
