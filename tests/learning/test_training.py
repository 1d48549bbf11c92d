"""Training finds what is there, repeats itself to the bit, and goes on where it was stopped."""

import threading
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest

import reference
from celltwin import files, models
from celltwin.data.domain import Domain, Fixed
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.interface import simulate_records
from celltwin.learning import tasks, training
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.models.narx import Narx
from celltwin.physics.thevenin import Thevenin

ADAM = Plan(adam_rounds=3, updates=4, lanes=4, chunk=50, learning_rate=3e-3)
LBFGS = Plan(lbfgs_rounds=3, iterations=3)
BOTH = Plan(adam_rounds=2, updates=3, lanes=4, chunk=50, lbfgs_rounds=2, iterations=2)
PLANS = {"adam": ADAM, "lbfgs": LBFGS, "adam then lbfgs": BOTH}


@pytest.fixture(scope="module")
def small():
    """Short records, so that a round takes no time."""
    return Split(
        train=(reference.drive("a", seed=1, samples=210), reference.drive("b", seed=2, samples=160)),
        validate=(reference.drive("c", seed=3, samples=150),),
        test=(),
    )


@pytest.fixture(scope="module")
def network(small):
    return Narx.create(small.train, Domain.of(small.train), jax.random.key(0), hidden=4)


def arrays(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def assert_equal(one, other):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)


def figures(fitted):
    return [(p.round, p.train, p.validate) for p in fitted.history]


# --- it learns -----------------------------------------------------------------------------------------------------


def test_a_known_circuit_is_recovered():
    records = [reference.drive(name, seed=seed, noise=1e-3) for name, seed in (("a", 1), ("b", 2))]
    split = Split(train=tuple(records), validate=(reference.drive("c", seed=3),), test=())
    start = Thevenin.create(split.train, time_constants=(4.0, 40.0))
    fitted = training.fit(start, split, Plan(lbfgs_rounds=3, iterations=25))
    truth = reference.drive("unseen", seed=4, noise=0.0)
    before, after = TASKS["voltage"].validate(start, [truth]), TASKS["voltage"].validate(fitted.model, [truth])
    assert before > 15
    assert after < 3.0  # mV; of this 1.7 is that the model bends where the cell is linear
    circuit = reference.Circuit()
    resistance, tau, _ = (np.asarray(a) for a in fitted.model.parameters_at(np.float32(0.7), np.float32(25.0)))
    assert resistance.sum() == pytest.approx(circuit.r0 + sum(circuit.r), rel=0.1)
    assert resistance[0] + resistance[-1] == pytest.approx(circuit.r0, rel=0.1)
    assert 20 < tau[1] < 120


@pytest.mark.parametrize("name", [f.name for f in models.families() if f.seeded and f.task == "voltage"])
def test_every_network_learns(name, split, twins):
    family = models.family(name)
    base = twins["thevenin"].model if family.base else None
    start = family.create(split.train, Domain.of(split.train), jax.random.key(0), base)
    plan = Plan(adam_rounds=2, updates=25, lanes=8, chunk=100, learning_rate=5e-3, averaging=0.9)
    fitted = training.fit(start, split, plan)
    before = TASKS["voltage"].validate(start, split.validate)
    assert fitted.history[-1].validate < 0.9 * before
    assert TASKS["voltage"].validate(fitted.model, split.validate) == pytest.approx(
        min(p.validate for p in fitted.history), rel=1e-6
    )


def test_what_is_fixed_stays(split, twins):
    start = twins["hybrid"].model
    fitted = training.fit(start, split, Plan(adam_rounds=1, updates=3, lanes=4, chunk=50))
    assert isinstance(start.base, Fixed)
    assert_equal(start.base, fitted.model.base)
    assert_equal(start.domain, fitted.model.domain)
    moved = [np.abs(a - b).max() for a, b in zip(arrays(start.residual), arrays(fitted.model.residual), strict=True)]
    assert max(moved) > 0


# --- it repeats itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_equal_seeds_give_equal_bits(name, network, small):
    one, other = (training.fit(network, small, PLANS[name]) for _ in range(2))
    assert figures(one) == figures(other)
    assert_equal(one.model, other.model)


def test_another_seed_gives_another_network(network, small):
    one, other = (training.fit(network, small, ADAM.model_copy(update={"seed": seed})) for seed in (0, 1))
    assert figures(one) != figures(other)
    assert any((a != b).any() for a, b in zip(arrays(one.model), arrays(other.model), strict=True))


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("name", PLANS)
def test_an_interrupted_training_ends_as_if_it_had_not_been(name, after, network, small, tmp_path):
    plan, checkpoint, stop = PLANS[name], tmp_path / "checkpoint", threading.Event()

    def interrupt(progress):
        if progress.round == after:
            stop.set()

    with pytest.raises(training.Interrupted):
        training.fit(network, small, plan, checkpoint=checkpoint, report=interrupt, stop=stop)
    assert len(files.load_about(checkpoint)["history"]) == after

    rounds = []
    resumed = training.fit(
        network, small, plan, checkpoint=checkpoint, resume=True, report=lambda p: rounds.append(p.round)
    )
    whole = training.fit(network, small, plan)
    assert rounds == list(range(after + 1, plan.adam_rounds + plan.lbfgs_rounds + 1))
    assert figures(resumed) == figures(whole)
    assert_equal(resumed.model, whole.model)


def test_a_checkpoint_of_other_work_is_refused(network, small, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    plan = Plan(adam_rounds=1, updates=1, lanes=2, chunk=50)
    training.fit(network, small, plan, checkpoint=checkpoint)
    other_plan = plan.model_copy(update={"learning_rate": 1e-4})
    other_records = Split(train=small.train[:1], validate=small.validate, test=())
    for given, chosen in ((small, other_plan), (other_records, plan)):
        with pytest.raises(CelltwinError, match="another plan or other records"):
            training.fit(network, given, chosen, checkpoint=checkpoint, resume=True)
    wider = Narx.create(small.train, Domain.of(small.train), jax.random.key(0), hidden=5)
    with pytest.raises(CelltwinError, match="other arrays"):
        training.fit(wider, small, plan, checkpoint=checkpoint, resume=True)


def test_a_finished_checkpoint_is_not_trained_again(network, small, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    first = training.fit(network, small, ADAM, checkpoint=checkpoint)
    rounds = []
    again = training.fit(network, small, ADAM, checkpoint=checkpoint, resume=True, report=rounds.append)
    assert not rounds
    assert_equal(first.model, again.model)


def test_without_resume_a_checkpoint_is_overwritten(network, small, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_text("of something else")
    training.fit(network, small, LBFGS.model_copy(update={"lbfgs_rounds": 1}), checkpoint=checkpoint)
    assert len(files.load_about(checkpoint)["history"]) == 1


# --- when it stops and what it keeps -------------------------------------------------------------------------------


def test_without_validation_the_last_round_is_kept(network, small, tmp_path):
    alone = Split(train=small.train, validate=(), test=())
    models_by_round = [training.fit(network, alone, LBFGS.model_copy(update={"lbfgs_rounds": n})).model for n in (1, 2)]
    fitted = training.fit(network, alone, LBFGS.model_copy(update={"lbfgs_rounds": 2}))
    assert all(np.isnan(p.validate) for p in fitted.history)
    assert_equal(fitted.model, models_by_round[1])
    assert any((a != b).any() for a, b in zip(arrays(fitted.model), arrays(models_by_round[0]), strict=True))


def test_the_best_round_is_kept(network, small):
    # Validation by a cell that behaves as the untrained model does: every round of training makes it worse.
    record = small.validate[0]
    itself = replace(record, voltage=simulate_records(network, [record])[0].voltage, net_capacity=None)
    fitted = training.fit(network, Split(train=small.train, validate=(itself,), test=()), LBFGS)
    validated = [p.validate for p in fitted.history]
    assert min(validated) < validated[-1]
    assert TASKS["voltage"].validate(fitted.model, [itself]) == pytest.approx(min(validated), rel=1e-6)


def test_a_diverging_validation_is_never_the_best(network, small, tmp_path, monkeypatch):
    validated = iter([float("nan"), 7.0, 5.0, 6.0])
    monkeypatch.setattr(tasks.Voltage, "validate", lambda task, model, records: next(validated))
    plan = Plan(adam_rounds=4, updates=1, lanes=2, chunk=50, patience=9)
    training.fit(network, small, plan, checkpoint=tmp_path / "state")
    assert files.load_about(tmp_path / "state")["best"] == 5.0


def test_training_stops_when_validation_does_not_improve(network, small):
    still = Plan(adam_rounds=12, updates=1, lanes=2, chunk=50, learning_rate=0.0, averaging=0.0, patience=2)
    history = training.fit(network, small, still).history
    assert len(history) == 3
    alone = Split(train=small.train, validate=(), test=())
    assert len(training.fit(network, alone, still).history) == 12


@pytest.mark.parametrize("plan", [ADAM, LBFGS], ids=["adam", "lbfgs"])
def test_a_start_that_diverges_is_an_error(plan, network, small):
    broken = jax.tree.map(lambda leaf: leaf * np.nan if eqx.is_inexact_array(leaf) else leaf, network)
    with pytest.raises(CelltwinError, match="diverged in its first round"):
        training.fit(broken, small, plan)


def test_missing_voltages_are_left_out_of_the_loss(network, small):
    def holes(record, filler):
        voltage = record.voltage.copy()
        voltage[20:60] = filler
        return replace(record, voltage=voltage)

    # What stands where nothing was measured must not matter: NaN is NaN.
    train = tuple(holes(r, np.nan) for r in small.train)
    fitted = training.fit(network, Split(train=train, validate=small.validate, test=()), LBFGS)
    assert all(np.isfinite(p.train) for p in fitted.history)
    assert fitted.history[-1].validate < TASKS["voltage"].validate(network, small.validate)


def test_progress_is_told_while_it_trains(network, small):
    shares = []
    training.fit(network, small, BOTH, tick=shares.append)
    assert shares == sorted(shares)
    assert 0.0 <= shares[0] < shares[-1] <= 1.0
    assert len(shares) > 6


def test_rmse_is_that_of_numpy(twins, drives):
    records = list(drives.values())[:3]
    outputs = simulate_records(twins["narx"].model, records)
    errors = np.concatenate([o.voltage.astype(float) - r.voltage for o, r in zip(outputs, records, strict=True)])
    found = TASKS["voltage"].validate(twins["narx"].model, records)
    assert found == pytest.approx(1e3 * np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert np.isnan(TASKS["voltage"].validate(twins["narx"].model, []))


def test_a_simulation_that_diverges_on_the_way_has_no_rmse(twins, drives, monkeypatch):
    records = list(drives.values())[:1]
    output = simulate_records(twins["narx"].model, records)[0]
    broken = output._replace(voltage=np.where(np.arange(len(records[0])) < 100, output.voltage, np.nan))
    monkeypatch.setattr(tasks, "simulate_records", lambda model, records: [broken])
    assert np.isnan(TASKS["voltage"].validate(twins["narx"].model, records))


# --- the plan ------------------------------------------------------------------------------------------------------


def test_little_data_shortens_the_plan_and_much_does_not():
    plan = Plan(adam_rounds=15, updates=10, lanes=10, chunk=100, passes=10)
    assert plan.for_samples(10).adam_rounds == 3
    assert plan.for_samples(5000).adam_rounds == 5
    assert plan.for_samples(10**9).adam_rounds == 15
    assert plan.for_samples(10).model_copy(update={"adam_rounds": 15}) == plan


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="learning_rat"):
        Plan.model_validate({"learning_rat": 1.0})
