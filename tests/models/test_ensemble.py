"""An ensemble is the mean of its members, in whatever way it is run."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import celltwin.estimators  # noqa: F401  makes them known by name
from celltwin import models
from celltwin.data.domain import Domain
from celltwin.errors import CelltwinError
from celltwin.interface import estimate_records, inputs_of, measurements_of, start_of, unknown_start
from celltwin.models.ensemble import Ensemble
from celltwin.twin import load
from shaking import shaken

NAMES = ["thevenin", "narx", "hybrid", "hybrid-gru", "lstm", "gru", "koopman"]


def members_of(twins, name):
    """Three twins of a family that differ in what training changes."""
    return [replace(twins[name], model=shaken(twins[name].model, seed, size=0.02)) for seed in range(3)]


@pytest.mark.parametrize("name", NAMES)
def test_an_ensemble_says_the_mean_of_its_members(name, twins, drives):
    members, record = members_of(twins, name), drives["5degC", "LA92"]
    model = Ensemble.of([one.model for one in members])
    assert model.size == 3
    said = replace(members[0], model=model).simulate(record)
    apart = [one.simulate(record) for one in members]
    assert np.ptp([one.voltage for one in apart], axis=0).max() > 1e-4
    np.testing.assert_allclose(said.voltage, np.mean([one.voltage for one in apart], axis=0), atol=3e-6)
    np.testing.assert_allclose(said.soc, np.mean([one.soc for one in apart], axis=0), atol=3e-6)
    start, inputs = start_of(record), inputs_of(record)
    spread = model.spread(start, inputs)
    np.testing.assert_allclose(spread, np.std([one.voltage for one in apart], axis=0, ddof=1), atol=3e-6)


@pytest.mark.parametrize("name", ["hybrid", "koopman"])
def test_step_by_step_is_the_same_as_whole(name, twins, drives):
    model, record = Ensemble.of([one.model for one in members_of(twins, name)]), drives["25degC", "LA92"]
    state = model.init(start_of(record))
    inputs = jax.tree.map(lambda column: column[:300], inputs_of(record))
    _, stepped = jax.lax.scan(lambda s, u: model.step(s, u), state, inputs)
    _, whole = model.run(state, inputs)
    np.testing.assert_allclose(stepped.voltage, whole.voltage, atol=3e-6)


@pytest.mark.parametrize("name", ["soc-fused", "soc-fnn"])
def test_estimators_say_their_mean_and_doubt_where_they_disagree(name, split, twins, drives):
    family, record = models.family(name), drives["5degC", "LA92"]
    base = twins[family.base].model if family.base else None
    one = family.create(split.train, Domain.of(split.train), jax.random.key(0), base)
    members = [shaken(one, seed, size=0.05) for seed in range(3)]
    model = Ensemble.of(members)
    said, apart = estimate_records(model, [record])[0], [estimate_records(m, [record])[0] for m in members]
    soc, std = (np.stack([getattr(each, what) for each in apart]) for what in ("soc", "std"))
    assert np.ptp(soc, axis=0).max() > 1e-3
    np.testing.assert_allclose(said.soc, soc.mean(axis=0), atol=3e-6)
    np.testing.assert_allclose(said.std, np.sqrt((std**2).mean(axis=0) + soc.var(axis=0)), rtol=1e-3)
    assert (said.std >= soc.std(axis=0) * (1 - 1e-4)).all()
    state, y = model.init(jax.tree.map(np.float32, unknown_start(record))), measurements_of(record)
    _, stepped = jax.lax.scan(lambda s, u: model.step(s, u), state, jax.tree.map(lambda a: a[:200], y))
    np.testing.assert_allclose(stepped.soc, said.soc[:200], atol=1e-5)


def test_what_members_share_is_held_once_and_comes_back_from_a_file(twins, drives, tmp_path):
    members = members_of(twins, "hybrid")
    model = Ensemble.of([one.model for one in members])
    assert model.own.base.circuit.ocv is None or not jax.tree.leaves(model.own.base)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(model.own))
    twin = replace(members[0], model=model)
    back, record = load(twin.save(tmp_path / "cell.twin")), drives["25degC", "LA92"]
    np.testing.assert_array_equal(back.simulate(record).voltage, twin.simulate(record).voltage)


def test_models_that_are_not_alike_are_refused(twins):
    narx, lstm = twins["narx"].model, twins["lstm"].model
    for strange in ([narx, lstm], [narx, shaken(twins["hybrid"].model, 1)]):
        with pytest.raises(CelltwinError, match="not alike"):
            Ensemble.of(strange)
    for same in ([narx], [narx, narx]):
        with pytest.raises(CelltwinError, match="all the same"):
            Ensemble.of(same)
