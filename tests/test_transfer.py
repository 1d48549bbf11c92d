"""A trained twin as the start of a training on another cell."""

import threading
from dataclasses import replace

import numpy as np
import pytest

import reference
from celltwin import jobs, models
from celltwin import twin as twin_file
from celltwin.data import datasets
from celltwin.data.splits import Split, shortened
from celltwin.errors import CelltwinError
from celltwin.interface import simulate_records
from celltwin.learning import training, transfer
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.models.aged import Aged

PLAN = Plan(adam_rounds=1, updates=10, lanes=4, chunk=50, learning_rate=1e-3, averaging=0.5)
TRAINED = [f.name for f in models.families() if f.plan and f.task == "voltage"]


def chained(name, dataset, split, source=None, plan=PLAN, **options):
    """A twin of the model, its bases trained before it."""
    sources = jobs.bases_of(source, name) if source else [None] * len(jobs.chain(name))
    made = None
    for family, start in zip(jobs.chain(name), sources, strict=True):
        made = jobs.train(jobs.Job(family, 0, plan), dataset, split, made, source=start, **options)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def dataset(dataset_folder):
    return datasets.load(dataset_folder)


@pytest.fixture(scope="module")
def sources(dataset):
    """A circuit and a hybrid that were trained on the simulated cell."""
    plan = Plan(adam_rounds=2, updates=25, lanes=8, chunk=100, learning_rate=1e-2, averaging=0.9)
    return {name: chained(name, dataset, dataset.split(), plan=plan) for name in ("thevenin", "hybrid-gru")}


# --- where training begins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
def test_a_resized_model_reads_currents_by_their_c_rate(name, twins, drives):
    record, model = drives["5degC", "LA92"], twins[name].model
    by_size, by_wrapper = simulate_records(transfer.resized(model, 0.4), [record])[0], Aged.of(model, 1.0, 0.4)
    np.testing.assert_allclose(by_size.voltage, simulate_records(by_wrapper, [record])[0].voltage, atol=2e-5)
    assert np.abs(by_size.voltage - simulate_records(model, [record])[0].voltage).max() > 1e-3


def test_a_shifted_curve_and_another_resistance_are_found(sources, drives):
    model, records = sources["thevenin"].model, [drives["25degC", "UDDS"], drives["5degC", "Mixed1"]]
    other = transfer.resized(replace(model, ocv=model.ocv.moved(np.array([0.5]), np.array([-0.3]))), 1.3)
    made = simulate_records(other, records)
    measured = [replace(r, voltage=np.asarray(o.voltage, float)) for r, o in zip(records, made, strict=True)]
    validate = TASKS["voltage"].validate
    assert validate(model, measured) > 200.0
    assert validate(transfer.fitted(model, measured), measured) < 20.0


@pytest.mark.parametrize("name", ["thevenin", "hybrid-gru"])
def test_on_its_own_data_a_twin_is_never_made_worse(name, sources, dataset):
    split = dataset.split()
    before = TASKS["voltage"].validate(sources[name].model, split.validate)
    wild = PLAN.model_copy(update={"learning_rate": 3.0, "clip": 100.0})
    for plan in (PLAN, wild):
        tuned = chained(name, dataset, split, sources[name], plan)
        assert TASKS["voltage"].validate(tuned.model, split.validate) <= before * (1 + 1e-6)
    assert tuned.card["history"][-1]["validate"] > before  # the wild training is what was turned down


@pytest.mark.parametrize("name", ["thevenin", "hybrid-gru"])
def test_a_round_from_a_twin_beats_a_round_from_nothing(name, sources, dataset):
    split = shortened(dataset.split(), 300.0)
    errors = [
        TASKS["voltage"].validate(chained(name, dataset, split, one).model, split.validate)
        for one in (sources[name], None)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_another_voltage_window_stretches_the_curve(sources, dataset):
    model, cell = sources["hybrid-gru"].model, dataset.cell
    low, high = cell.voltage_limits_volt
    narrow = replace(cell, voltage_limits_volt=(low, low + 0.5 * (high - low)))
    read = transfer.read_by(model, cell, narrow)
    for soc in (0.1, 0.5, 1.0):
        at = [np.asarray(m.base.circuit.ocv(np.float32(soc), np.float32(25.0))) for m in (model, read)]
        np.testing.assert_allclose(at[1] - low, 0.5 * (at[0] - low), atol=1e-5)
    assert transfer.digest(transfer.read_by(model, cell, cell)) == transfer.digest(model)


# --- what comes out ------------------------------------------------------------------------------------------------


def test_the_card_says_where_a_twin_comes_from(sources, dataset):
    cell = replace(dataset.cell, name="other", nominal_capacity_ah=2 * dataset.cell.nominal_capacity_ah)
    split = shortened(dataset.split(), 300.0)
    tuned = chained("hybrid-gru", replace(dataset, cell=cell), split, sources["hybrid-gru"])
    about = tuned.card["from"]
    assert (about["name"], about["cell"]) == ("hybrid-gru", dataset.cell.name)
    assert about["weights"] == transfer.digest(sources["hybrid-gru"].model)
    assert about["start"] in about["errors"]
    assert tuned.cell == cell
    # What it flags is the range of the new records; what its network is scaled with is as it was, by the C-rate.
    assert tuned.domain.ranges()["soc"][0] == pytest.approx(min(r.soc.min() for r in split.train), abs=1e-6)
    inner, before = tuned.model.domain, sources["hybrid-gru"].model.domain
    np.testing.assert_allclose(inner.std[0], 2.0 * before.std[0], rtol=1e-6)
    np.testing.assert_array_equal(inner.std[1:], before.std[1:])
    assert set(tuned.domain.seen) == {r.content_hash for r in split.train} | set(sources["hybrid-gru"].domain.seen)


def test_a_fine_tuned_twin_is_a_twin(sources, dataset, tmp_path):
    tuned = chained("hybrid-gru", dataset, shortened(dataset.split(), 300.0), sources["hybrid-gru"])
    again = twin_file.load(tuned.save(tmp_path / "tuned.twin"))
    record = dataset.split().test[0]
    np.testing.assert_array_equal(again.simulate(record).voltage, tuned.simulate(record).voltage)
    chained("hybrid-gru", dataset, dataset.split(), again)  # and can be begun with


@pytest.mark.parametrize("name", ["thevenin", "hybrid-gru"])
def test_an_interrupted_fine_tuning_ends_as_if_it_had_not_been(name, sources, dataset, tmp_path):
    split = shortened(dataset.split(), 400.0)
    source, family = sources[name], models.family(name)
    base = chained(family.base, dataset, split, jobs.bases_of(source, name)[0]) if family.base else None
    job, stop = jobs.Job(family, 0, PLAN.model_copy(update={"adam_rounds": 2})), threading.Event()

    def interrupt(job, share, progress):
        if progress is not None:
            stop.set()

    options = {"source": source, "checkpoint": tmp_path / "checkpoint"}
    with pytest.raises(training.Interrupted):
        jobs.train(job, dataset, split, base, **options, listen=interrupt, stop=stop)
    resumed = jobs.train(job, dataset, split, base, **options, resume=True)
    whole = jobs.train(job, dataset, split, base, source=source)
    assert transfer.digest(resumed.model) == transfer.digest(whole.model)
    other = replace(source, model=transfer.resized(source.model, 1.1))
    with pytest.raises(CelltwinError, match="another plan or other records"):
        jobs.train(job, dataset, split, base, **options | {"source": other}, resume=True)


# --- minutes -------------------------------------------------------------------------------------------------------


def test_later_samples_are_not_seen(sources, dataset):
    split = dataset.split()
    first, *others = split.train
    seconds = 300.0
    late = first.time - first.time[0] > seconds
    changed = replace(first, voltage=np.where(late, first.voltage + 0.5, first.voltage))
    different = Split((changed, *others), split.validate, split.test)
    one, other = (chained("thevenin", dataset, shortened(s, seconds), sources["thevenin"]) for s in (split, different))
    assert transfer.digest((one.model, one.domain)) == transfer.digest((other.model, other.domain))
    assert one.domain.seen == other.domain.seen
    whole = [chained("thevenin", dataset, s, sources["thevenin"]) for s in (split, different)]
    assert transfer.digest(whole[0].model) != transfer.digest(whole[1].model)


def test_minutes_go_on_into_the_next_record():
    a, b, c = (reference.drive(name, seed=i, samples=201) for i, name in enumerate("abc"))
    lengths = [float(r.time[-1] - r.time[0]) for r in (a, b, c)]
    split = Split((a, b), (c,), ())
    kept = shortened(split, lengths[0] + 0.5 * lengths[1])
    assert kept.train[0] is a
    assert kept.train[1].time[-1] - b.time[0] == pytest.approx(0.5 * lengths[1], abs=2.0)
    assert kept.validate == (c,)
    assert shortened(split, 1e9).train == (a, b)
    with pytest.raises(CelltwinError, match="nothing left to train on"):
        shortened(split, 0.0)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_source_must_fit(sources, twins, dataset):
    with pytest.raises(CelltwinError, match="celltwin fit thevenin"):
        jobs.bases_of(sources["thevenin"], "narx")
    with pytest.raises(CelltwinError, match="says soc"):
        jobs.bases_of(replace(sources["thevenin"], task="soc"), "thevenin")
    with pytest.raises(CelltwinError, match="needs no training"):
        jobs.bases_of(twins["ohmic"], "ohmic")
    with pytest.raises(CelltwinError, match="does not hold the model"):
        jobs.bases_of(replace(sources["thevenin"], name="hybrid"), "hybrid")


def test_a_source_that_saw_the_test_is_refused(sources, dataset):
    split = dataset.split()
    seen = replace(split, train=split.validate, validate=(), test=split.train)
    with pytest.raises(CelltwinError, match="saw test record"):
        chained("thevenin", dataset, seen, sources["thevenin"])
