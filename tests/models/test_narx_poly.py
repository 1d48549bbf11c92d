"""Polynomial NARX: the right terms are found, and the equation that is printed is the model."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from celltwin.interface import simulate_records
from celltwin.learning.tasks import TASKS
from celltwin.models.narx_poly import BASES, MONOMIALS, NarxPoly, select
from celltwin.models.regression import Normal

rmse = TASKS["voltage"].validate  # mV, in closed loop


@pytest.fixture(scope="module")
def learned(split):
    return NarxPoly.create(split.train)


def folds(design, target):
    return [Normal.of(design[i::3], target[i::3]) for i in range(3)]


def test_the_terms_that_are_there_are_chosen_and_no_others():
    draw = np.random.default_rng(0)
    design = draw.normal(size=(3000, 12))
    design[:, 7] = design[:, 2] + 0.3 * design[:, 7]  # correlated with one that counts
    target = 3.0 * design[:, 2] - 2.0 * design[:, 5] + 0.05 * draw.normal(size=3000)
    chosen, weights = select(folds(design, target))
    assert chosen == [2, 5]
    np.testing.assert_allclose(weights, [3.0, -2.0], atol=0.02)


def test_terms_come_in_the_order_of_what_they_explain():
    draw = np.random.default_rng(1)
    design = draw.normal(size=(900, 6))
    target = design @ [0.5, 4.0, 0.0, 1.0, 0.0, 2.0]
    assert select(folds(design, target))[0] == [1, 5, 3, 0]


def test_a_sum_of_chosen_terms_is_not_chosen():
    draw = np.random.default_rng(2)
    design = draw.normal(size=(300, 3))
    design[:, 2] = design[:, 0] - design[:, 1]
    chosen, weights = select(folds(design, design @ [1.0, 2.0, 0.0]))
    assert len(chosen) == 2
    assert np.isfinite(weights).all()


def test_it_learns_the_cell(learned, split):
    ohmic = eqx.tree_at(lambda m: m.weights, learned, 0.0 * learned.weights)
    assert rmse(learned, split.test) < 0.6 * rmse(ohmic, split.test)
    assert 1 <= len(learned.terms) <= 40
    assert len(set(learned.terms)) == len(learned.terms)


def test_the_equation_says_every_term(learned):
    first, *lines = learned.equation().replace("e = ", "").splitlines()
    assert first == "V = U(soc) + R(T) I + 0.1 e"
    assert len(lines) == len(learned.terms)
    for line, weight, (base, monomial) in zip(lines, np.asarray(learned.weights), learned.terms, strict=True):
        number, *factors = line.split()
        assert float(number) == pytest.approx(float(weight), rel=1e-3)
        assert " ".join(factors) == (" ".join(n for n in (BASES[base], MONOMIALS[monomial]) if n != "1") or "1")


def test_its_own_past_is_fed_back_and_cannot_run_away(learned, drives):
    # An equation whose past grows tenfold at every step: clipped, it stays where a voltage may be.
    record = drives["25degC", "LA92"].between(0, 300)
    terms = ((0, 0), (BASES.index("e~30s"), 0))
    tame, wild = (
        NarxPoly(learned.static, jnp.asarray(weights, jnp.float32), terms) for weights in ((0.01, 0.5), (0.01, 10.0))
    )
    for model in (tame, wild):
        voltage = simulate_records(model, [record])[0].voltage
        np.testing.assert_allclose(voltage, reference.narx_poly(model, record), atol=1e-4)
        assert np.abs(voltage).max() < 4.3 + 0.1 * 10 * 5
    assert np.abs(simulate_records(wild, [record])[0].voltage - simulate_records(tame, [record])[0].voltage).max() > 0.5
