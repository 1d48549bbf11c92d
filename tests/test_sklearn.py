"""The scikit-learn wrapper: its checks, as far as numbers can be voltages, and the same figures as the twin's own."""

from dataclasses import replace

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="the sklearn extra is not installed")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import reference  # noqa: E402
from celltwin import twin as twin_file  # noqa: E402
from celltwin.errors import CelltwinError  # noqa: E402
from celltwin.sklearn import CellTwinRegressor, arrays  # noqa: E402


class OfAnything(CellTwinRegressor):
    """The checks feed any numbers as a target; this turns them into voltages of a cell and leaves the rest alone."""

    def fit(self, X, y):
        if y is not None:
            y = np.asarray(y)
            if y.dtype.kind in "fiub" and y.size and np.isfinite(y).all():
                y = 3.6 + 0.4 * np.tanh((y - y.mean()) / (y.std() + 1.0))
        return super().fit(X, y)


UNMET = {
    "check_methods_sample_order_invariance": "samples are in order of time: a cell remembers",
    "check_methods_subset_invariance": "samples are in order of time: a cell remembers",
}


@parametrize_with_checks([OfAnything("ohmic", capacity_ah=1.0)], expected_failed_checks=lambda estimator: UNMET)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cycles(split):
    return arrays(split.train)


OPTIONS = {
    "temperature": 1,
    "time": 2,
    "capacity_ah": reference.CELL.reference_capacity_ah,
    "voltage_limits": reference.CELL.voltage_limits_volt,
    "random_state": 0,
}
TINY = {"adam_rounds": 1, "updates": 5, "lanes": 4, "chunk": 50}


def test_predictions_are_the_twin_s_simulations(cycles, split, tmp_path):
    X, y, groups = cycles
    model = CellTwinRegressor("hybrid", plan=TINY, **OPTIONS).fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == y.shape
    for number, record in enumerate(split.train):
        # The measured first voltage is not among what a prediction is given; the open-circuit voltage stands for it.
        soc, degrees = np.array([1.0]), float(record.filled_temperature[0])
        rested = twin_file.probe(model.twin_.model, soc, degrees, model.twin_.cell)[0]
        own = model.twin_.simulate(replace(record, voltage=np.repeat(rested, len(record)), initial_soc=1.0)).voltage
        np.testing.assert_allclose(predicted[groups == number], own, rtol=0, atol=1e-5)
    assert model.score(X, y) > 0.5
    model.twin_.save(tmp_path / "cell.twin")
    assert twin_file.load(tmp_path / "cell.twin").name == "hybrid"


def test_it_searches_and_validates_by_whole_cycle(cycles):
    X, y, groups = cycles
    scores = cross_val_score(CellTwinRegressor("ohmic", **OPTIONS), X, y, groups=groups, cv=GroupKFold(3))
    assert scores.shape == (3,)
    assert scores.min() > 0.5
    search = GridSearchCV(CellTwinRegressor(**OPTIONS), {"model": ["hold", "ohmic"]}, cv=GroupKFold(3))
    assert search.fit(X, y, groups=groups).best_params_ == {"model": "ohmic"}


def test_seeds_repeat(cycles):
    X, y, _ = cycles
    one = CellTwinRegressor("narx", plan=TINY, **OPTIONS)
    first, again = (clone(one).fit(X, y).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = clone(one).set_params(random_state=1).fit(X, y).predict(X)
    assert not np.array_equal(first, other)


def test_columns_by_name(cycles):
    pandas = pytest.importorskip("pandas")
    X, y, _ = cycles
    frame = pandas.DataFrame(X[:, ::-1], columns=["seconds", "degrees", "ampere"])
    named = OPTIONS | {"current": "ampere", "temperature": "degrees", "time": "seconds"}
    by_name = CellTwinRegressor("ohmic", **named).fit(frame, y).predict(frame)
    np.testing.assert_array_equal(by_name, CellTwinRegressor("ohmic", **OPTIONS).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="no column 'amps'"):
        CellTwinRegressor("ohmic", **named | {"current": "amps"}).fit(frame, y)


def test_what_is_no_cell_is_refused(cycles):
    X, y, _ = cycles
    with pytest.raises(ValueError, match="not the voltage of one cell in V: it goes from"):
        CellTwinRegressor("ohmic", **OPTIONS).fit(X, 1e3 * y)
    with pytest.raises(CelltwinError, match="soc-lstm says soc"):
        CellTwinRegressor("soc-lstm", **OPTIONS).fit(X, y)
    with pytest.raises(CelltwinError, match="did you mean 'narx'"):
        CellTwinRegressor("narxx", **OPTIONS).fit(X, y)
    with pytest.raises(ValueError, match="no record of two samples"):
        CellTwinRegressor("ohmic", **OPTIONS | {"time": 2}).fit(X[:, [0, 1, 1]] * [1, 1, 0], y)
