"""Voltage models behind scikit-learn's interface: `fit(X, y)`, `predict(X)`, `score`, `get_params`, grid search.

    from celltwin.sklearn import CellTwinRegressor, arrays

    X, y, groups = arrays(records)                                  # current, temperature, seconds; voltage; the cycle
    model = CellTwinRegressor("narx", temperature=1, time=2, capacity_ah=2.78)
    scores = cross_val_score(model, X, y, groups=groups, cv=GroupKFold(4))   # by whole cycle, never by window

A prediction is a simulation in closed loop: it begins at rest at a known state of charge and sees current and
temperature alone. Needs `pip install 'celltwin[sklearn]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from celltwin import models, twin
from celltwin.data.domain import Domain
from celltwin.data.record import Cell, Record
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.jobs import chain
from celltwin.learning import training
from celltwin.twin import Twin

PLAUSIBLE = (0.0, 10.0)  # V of one cell

Column = int | str | None


def arrays(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of records one after the other: X [samples, 3] of current (A), temperature (degC) and time (s, from 0 in each),
    y [samples] of voltage (V), and the number of the record that each sample belongs to.
    """
    X = np.concatenate([np.stack([r.current, r.filled_temperature, r.time - r.time[0]], axis=1) for r in records])
    y = np.concatenate([r.voltage for r in records])
    return X, y, np.repeat(np.arange(len(records)), [len(r) for r in records])


class CellTwinRegressor(RegressorMixin, BaseEstimator):
    """A cell's voltage (V) from its current, by any voltage model that `celltwin models` lists.

    Parameters
    ----------
    model: name of the model.
    current: column of X that holds the current in A, positive on charge; a number, or a name where X has names.
    temperature: column of the temperature in degC; None for `ambient_degC` throughout.
    time: column of the time in s. Where it does not increase, another record begins, at rest again. None for one
        record with a sample every `seconds`.
    seconds: from sample to sample, where there is no time.
    ambient_degC: the temperature, where there is none.
    capacity_ah: reference capacity of the cell in Ah; None for the widest range of charge in a training record, which
        is right where one of them goes from full to empty.
    voltage_limits: lowest and highest voltage of the cell in V; None for those in training.
    initial_soc: state of charge (fraction) with which every record begins.
    plan: settings that differ from the model's plan of training, such as {"adam_rounds": 5}.
    random_state: seed of the random start.

    Attributes
    ----------
    twin_: the trained `celltwin.twin.Twin`, to save, export or evaluate.
    n_features_in_, feature_names_in_: as scikit-learn has them.
    """

    def __init__(
        self,
        model: str = "thevenin",
        *,
        current: int | str = 0,
        temperature: Column = None,
        time: Column = None,
        seconds: float = 1.0,
        ambient_degC: float = 25.0,
        capacity_ah: float | None = None,
        voltage_limits: tuple[float, float] | None = None,
        initial_soc: float = 1.0,
        plan: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.current = current
        self.temperature = temperature
        self.time = time
        self.seconds = seconds
        self.ambient_degC = ambient_degC
        self.capacity_ah = capacity_ah
        self.voltage_limits = voltage_limits
        self.initial_soc = initial_soc
        self.plan = plan
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train on X [samples, columns] and the voltages y [samples] (V).

        Raises ValueError for what scikit-learn refuses and for voltages that are not those of one cell in V;
        CelltwinError for an unknown model, or one that does not say voltage.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        y = np.asarray(y, np.float64)
        if y.min() < PLAUSIBLE[0] or y.max() > PLAUSIBLE[1]:
            raise ValueError(f"y is not the voltage of one cell in V: it goes from {y.min():.4g} to {y.max():.4g}")
        family = models.family(self.model)
        if family.task != "voltage":
            raise CelltwinError(f"{self.model} says {family.task}", expected="a model that says voltage")
        pieces = [piece for piece in self._pieces(X) if piece.stop - piece.start > 1]
        if not pieces:
            raise ValueError("X holds no record of two samples: its time column never increases")
        blank = [self._record(X[piece], y[piece], None) for piece in pieces]
        cell = self._cell(blank, y)
        records = tuple(self._record(X[piece], y[piece], cell) for piece in pieces)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        split, made = Split(records, (), ()), None
        domain, key = Domain.of(records), jax.random.key(seed)
        for one in chain(self.model):
            made = one.create(records, domain, key, made)
            if one.plan is not None:
                changes = dict(self.plan or {}) if one is family else {}
                plan = one.plan.for_samples(sum(map(len, records)))
                plan = type(plan).model_validate(plan.model_dump() | changes | {"seed": seed})
                made = training.fit(made, split, plan).model
        card = {"title": family.title, "dataset": "arrays", "seed": seed, "parameters": training.parameters(made)}
        self.twin_ = Twin(self.model, made, domain, cell, card)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Simulated voltage (V) of each sample of X, in closed loop from rest at `initial_soc`: [samples]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        cell = self.twin_.cell
        rested: dict[float, float] = {}
        voltage = np.empty(len(X))
        for piece in self._pieces(X):
            part = X[piece] if piece.stop - piece.start > 1 else np.repeat(X[piece], 2, axis=0)  # a record has two
            record = self._record(part, np.zeros(len(part)), cell)
            degrees = float(record.temperature[0])
            if degrees not in rested:
                soc = np.array([self.initial_soc])
                rested[degrees] = float(twin.probe(self.twin_.model, soc, degrees, cell)[0][0])
            record = self._record(part, np.full(len(part), rested[degrees]), cell)
            voltage[piece] = np.asarray(self.twin_.simulate(record).voltage)[: piece.stop - piece.start]
        return voltage

    def _column(self, X: np.ndarray, which: int | str) -> np.ndarray:
        if isinstance(which, str):
            names = list(getattr(self, "feature_names_in_", ()))
            if which not in names:
                raise ValueError(f"X has no column '{which}'; its columns are {names or 'without names'}")
            which = names.index(which)
        if not -X.shape[1] <= which < X.shape[1]:
            raise ValueError(f"X has {X.shape[1]} features, but column {which} was asked for")
        return X[:, which]

    def _pieces(self, X: np.ndarray) -> list[slice]:
        """Where records begin and end."""
        if self.time is None:
            return [slice(0, len(X))]
        begins = np.flatnonzero(np.diff(self._column(X, self.time)) <= 0) + 1
        bounds = [0, *begins.tolist(), len(X)]
        return [slice(a, b) for a, b in pairwise(bounds)]

    def _record(self, X: np.ndarray, voltage: np.ndarray, cell: Cell | None) -> Record:
        n = len(X)
        time = self.seconds * np.arange(n) if self.time is None else self._column(X, self.time)
        if n == 2 and time[0] == time[1]:
            time = np.array([0.0, self.seconds])  # one sample, repeated
        return Record(
            name="array",
            time=time,
            voltage=voltage,
            current=self._column(X, self.current),
            temperature=np.full(n, self.ambient_degC)
            if self.temperature is None
            else self._column(X, self.temperature),
            cell=cell,
            initial_soc=self.initial_soc,
        )

    def _cell(self, records: Sequence[Record], y: np.ndarray) -> Cell:
        capacity = self.capacity_ah or max(float(np.ptp(record.charge_ah)) for record in records)
        low, high = self.voltage_limits or (float(y.min()), float(y.max()))
        if capacity <= 0.0:
            raise ValueError("no charge passes in X: give capacity_ah")
        return Cell("cell", capacity, (low, high if high > low else low + 1e-3), capacity)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # on what is no cell
        return tags
