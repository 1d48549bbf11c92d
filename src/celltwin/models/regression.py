"""Least squares over many records: what the models in closed form share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg

from celltwin.data.record import Record

PIECES, PIECE_SECONDS = 2, 1800.0  # starts inside a record, for a twin that wakes there
FLOOR = 1e-6  # of a column's mean square: one that hardly ever moves gets no weight


class Normal(NamedTuple):
    """Normal equations of least squares: X^T X, X^T y, y^T y and the number of rows."""

    square: np.ndarray
    right: np.ndarray
    power: float
    rows: int

    @classmethod
    def zero(cls, size: int) -> Normal:
        """Those of no rows."""
        return cls(np.zeros((size, size)), np.zeros(size), 0.0, 0)

    @classmethod
    def of(cls, design: np.ndarray, target: np.ndarray) -> Normal:
        """Those of regressors [rows, columns] and targets [rows]."""
        return cls(design.T @ design, design.T @ target, float(target @ target), len(target))

    def plus(self, other: Normal) -> Normal:
        return Normal(
            self.square + other.square, self.right + other.right, self.power + other.power, self.rows + other.rows
        )

    def error(self, weights: np.ndarray) -> float:
        """Sum of squared errors of a solution on these rows."""
        return float(weights @ self.square @ weights - 2 * weights @ self.right + self.power)

    def solution(self, columns: Sequence[int], ridge: float) -> np.ndarray:
        """Weights of some columns alone, by ridge regression beside columns of mean square one."""
        square = self.square[np.ix_(columns, columns)]
        scale = np.sqrt(np.diag(square) / max(self.rows, 1)) + FLOOR
        normal = square / np.outer(scale, scale) + ridge * max(self.rows, 1) * np.eye(len(scale))
        return linalg.solve(normal, self.right[list(columns)] / scale, assume_a="pos") / scale


def sum_of(folds: Sequence[Normal]) -> Normal:
    """Normal equations of several sets of rows together."""
    whole = folds[0]
    for fold in folds[1:]:
        whole = whole.plus(fold)
    return whole


def pieces(record: Record) -> list[Record]:
    """Pieces of a record that start inside it."""
    begins = [len(record) * (i + 1) // (PIECES + 1) for i in range(PIECES)]
    ends = [int(np.searchsorted(record.time, record.time[b] + PIECE_SECONDS)) for b in begins]
    return [record.between(b, e) for b, e in zip(begins, ends, strict=True) if np.isfinite(record.voltage[b:e]).any()]
