"""Pack logs, packs drawn at random, pack models on any wiring, and what they are judged by."""

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from celltwin import pack_benchmark
from celltwin.data import datasets, importers
from celltwin.data.record import Cell, PackRecord
from celltwin.errors import CelltwinError
from celltwin.learning.pack_training import PackPlan, fit_packs, predict, root_mean_square
from celltwin.learning.training import trainable
from celltwin.models.pack_circuit import CircuitNetwork, Own, Wiring
from celltwin.models.pack_graph import PackGraph, gather
from celltwin.models.pack_lstm import PackLstm
from celltwin.packs import score, study
from celltwin.packs.draw import Fault, Order, Spread, demo_circuit, draw
from celltwin.packs.log import Known, PackLog, of_record, side_by_side
from celltwin.physics.thevenin import Thevenin
from celltwin.physics.topology import parse

NAMES = ("2s2p", "3s")


@cache
def cycles():
    return {r.name: r for r in datasets.load("demo").records if r.key.startswith("A/25degC")}


@cache
def logs(fault=None, seed=1):
    """Two small packs, cut to a few minutes."""
    orders = [Order(name, seed + i, cycles()["US06"], fault) for i, name in enumerate(NAMES)]
    return tuple(draw(orders, demo_circuit()))


@cache
def cell():
    return Thevenin.of(demo_circuit())


def short(samples=60, **which):
    return [log.until(samples) for log in logs(**which)]


def told():
    return CircuitNetwork.create(cell(), demo_circuit().capacity_ah, told=True)


@cache
def woken():
    """A graph network whose corrections are not zero."""
    graph = PackGraph.create(told(), jax.random.key(3))
    keys = iter(jax.random.split(jax.random.key(4), 200))
    params, rest = eqx.partition(graph, trainable(graph))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)
    return eqx.combine(params, rest)


def test_a_drawn_pack_is_its_seed_and_its_cells_differ():
    again = draw([Order(name, 1 + i, cycles()["US06"]) for i, name in enumerate(NAMES)], demo_circuit())
    for one, other in zip(logs(), again, strict=True):
        np.testing.assert_array_equal(one.voltage, other.voltage)
        assert np.ptp(one.truth["capacity"]) > 0.01
        assert np.ptp(one.truth["soc"][-1]) > 0.003
    assert not np.array_equal(logs()[0].voltage, logs(seed=5)[0].voltage[: len(logs()[0])])
    noise = logs()[1].voltage - logs()[1].truth["voltage"]
    assert np.std(noise) == pytest.approx(Spread().voltage, rel=0.1)
    assert logs()[0].current[0] == 0.0
    assert logs()[0].truth["voltage"].min() > 2.5


def test_another_day_is_the_same_pack_in_other_weather():
    first, later = (draw([Order("3s2p", 4, cycles()["US06"], day=day)], demo_circuit())[0] for day in (0, 1))
    for name in ("capacity", "resistance", "contact"):
        np.testing.assert_array_equal(first.truth[name], later.truth[name])
    np.testing.assert_array_equal(first.known.capacity, later.known.capacity)
    np.testing.assert_array_equal(first.known.resistance, later.known.resistance)
    assert abs(first.ambient[0] - later.ambient[0]) > 1.0
    assert np.abs(first.truth["soc"][0] - later.truth["soc"][0]).min() > 1e-3
    n = min(len(first), len(later))
    noise = [(log.voltage - log.truth["voltage"])[:n].ravel() for log in (first, later)]
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.1


def test_logs_end_where_the_first_cell_is_empty():
    log = logs()[1]
    at, cell_ = study.empty_at(log.truth["voltage"])
    assert at > 100
    assert log.truth["voltage"][at, cell_] < 3.0 <= log.truth["voltage"][:at].min()
    assert len(study.ended(log)) == at


@pytest.mark.parametrize(
    "fault", [Fault("resistance", 1.5), Fault("self-discharge", 10.0), Fault("loose joint", 0.03, 1440.0)]
)
def test_a_fault_shows_in_its_sign(fault):
    """Against the true parameters: the faulty cell's sign is the largest of its pack."""
    healthy, ill = logs(seed=11)[1], logs(fault, 11)[1]
    n = min(len(healthy), len(ill))
    seen = replace(ill.until(n), voltage=ill.truth["voltage"][:n])
    out = predict(told(), [healthy.until(n)])[0]._replace(voltage=healthy.truth["voltage"][:n])
    sign = score.signs(seen, out)
    shown = getattr(sign, score.SHOWN_BY[fault.kind])
    assert int(np.argmax(shown)) == ill.truth["faulty"]
    if fault.kind == "loose joint":
        begin = ill.truth["begin"]
        assert np.abs(seen.voltage - healthy.truth["voltage"][:n])[:begin].max() < 1e-4
        found = score.detection(fault.kind, [sign], [seen], score.Signs(0.0, 0.0, 0.0))
        assert (found["detected"], found["located"]) == (1.0, 1.0)


def test_logs_of_other_steps_are_simulated_apart():
    log = short()[0]
    slow = replace(log, dt=2.0 * log.dt)
    alone = [predict(told(), [one])[0] for one in (log, slow)]
    for out, one in zip(predict(told(), [log, slow]), alone, strict=True):
        np.testing.assert_array_equal(out.voltage, one.voltage)


def test_packs_side_by_side_keep_their_own():
    topology, batch = side_by_side(short())
    assert topology.packs == 2
    assert batch.voltage.shape == (60, 7)
    longer = [logs()[0].until(80), logs()[1].until(60)]
    _, padded = side_by_side(longer, 50)
    assert padded.voltage.shape[0] == 100
    assert padded.mask[:60].all()
    assert not padded.mask[60:, 4:].any()
    assert not padded.inputs.current[80:].any()
    with pytest.raises(CelltwinError, match="different steps"):
        side_by_side([logs()[0], replace(logs()[1], dt=1.0)])


def test_a_string_record_becomes_a_log_that_keeps_its_charge():
    time = np.cumsum(np.random.default_rng(0).uniform(0.2, 1.5, 400))
    current = np.where(time > 20, -3.0, 0.0)
    voltage = 4.0 - 1e-3 * time[:, None] * np.array([1.0, 1.2, 1.4])
    record = PackRecord(
        "string", time, voltage.sum(axis=1), current, np.full(400, 25.0),
        group_voltage=voltage, sensor_temperature=np.full((400, 1), 24.0),
    )  # fmt: skip
    facts = Cell("group", 5.0, (2.5, 4.2), 5.0)
    log = of_record(record, facts, dt=2.0)
    assert log.topology.cells == 3
    assert log.known.voltage[2] == pytest.approx(voltage[0, 2])
    assert np.isnan(log.known.capacity).all()
    charge = np.interp(log.dt * (len(log) - 1) + time[0], time, record.charge_ah)
    assert np.sum(log.current) * 2.0 / 3600.0 == pytest.approx(charge, rel=1e-9)
    with pytest.raises(CelltwinError, match="rest"):
        of_record(replace(record, current=current - 3.0), facts)
    with pytest.raises(CelltwinError, match="topology"):
        of_record(record, facts, topology="4s")


def test_a_wide_csv_is_a_string(tmp_path):
    path = tmp_path / "string.csv"
    rows = [
        f"{t},{12.0 - 0.01 * t},{-2.0 if t > 5 else 0.0},{4.0 - 0.003 * t},{4.0 - 0.004 * t},{4.0 - 0.003 * t}"
        for t in range(60)
    ]
    path.write_text("time_s,voltage_v,current_a,cell_voltage_1,cell_voltage_2,cell_voltage_3\n" + "\n".join(rows))
    record = importers.load(path)
    assert isinstance(record, PackRecord)
    assert record.group_voltage.shape == (60, 3)
    assert record.group_voltage[10, 1] == pytest.approx(3.96)


def test_an_untrained_graph_network_says_what_its_circuits_say():
    graph = PackGraph.create(told(), jax.random.key(0))
    for one, other in zip(predict(graph, short()), predict(told(), short()), strict=True):
        np.testing.assert_allclose(one.voltage, other.voltage, atol=6e-3)


def test_messages_are_means_over_each_kind_of_neighbour():
    wiring = Wiring.of(parse("3s2p"))
    x = jnp.arange(6.0)[:, None]
    others, series, heat, pack = np.asarray(gather(wiring, x)).T
    np.testing.assert_allclose(others, [1, 0, 3, 2, 5, 4])
    np.testing.assert_allclose(series, [2.5, 2.5, 2.5, 2.5, 2.5, 2.5])
    np.testing.assert_allclose(heat, [1.5, 1.5, 7 / 3, 8 / 3, 3.5, 3.5])
    np.testing.assert_allclose(pack, 2.5)


def test_the_order_of_cells_in_a_group_is_of_no_matter_to_the_graph():
    log = logs()[0].until(40)
    new = np.array([1, 0, 3, 2])  # both groups of 2s2p turned
    moved = replace(
        log, known=Known(*(x[new] for x in log.known)), voltage=log.voltage[:, new], temperature=log.temperature[:, new]
    )
    one, other = predict(woken(), [log], 1, 40)[0], predict(woken(), [moved], 1, 40)[0]
    plain = predict(told(), [log], 1, 40)[0]
    np.testing.assert_allclose(one.voltage[:, new], other.voltage, atol=2e-5)
    assert np.abs(one.voltage - plain.voltage).max() > 2e-3  # it does correct


def test_the_graph_runs_on_wirings_it_never_saw():
    topology = parse("3p+2p+2s4p")
    cells = topology.cells
    known = Known(np.full(cells, 4.0), np.full(cells, 25.0), np.full(cells, np.nan), np.linspace(0.9, 1.1, cells))
    log = replace(
        logs()[0].until(20), topology=topology, known=known, voltage=np.full((20, cells), np.nan),
        temperature=np.full((20, cells), np.nan),
    )  # fmt: skip
    out = predict(woken(), [log], 1, 20)[0]
    assert out.voltage.shape == (20, cells)
    assert np.isfinite(out.voltage).all()
    assert (np.abs(np.asarray(out.current).sum(axis=1) - 4 * log.current) < 1e-2).all()  # four groups carry it


def test_a_measured_voltage_after_the_start_changes_nothing():
    log = logs()[0].until(40)
    wrong = replace(log, voltage=log.voltage + 0.1, temperature=log.temperature + 5.0)
    lstm = PackLstm.create(5.0, jax.random.key(0))
    for model in (woken(), told(), lstm):
        one, other = predict(model, [log], 1, 40)[0], predict(model, [wrong], 1, 40)[0]
        np.testing.assert_array_equal(one.voltage, other.voltage)


def test_mean_even_and_kirchhoff_are_what_they_say():
    log = logs()[0].until(60)
    capacity = demo_circuit().capacity_ah
    mean, even, shared = (
        predict(CircuitNetwork.create(cell(), capacity, sharing=kind), [log], 1, 60)[0]
        for kind in ("mean", "even", "kirchhoff")
    )
    assert np.ptp(mean.voltage, axis=1).max() < 2e-5
    np.testing.assert_allclose(even.current, np.tile(log.current[:, None] / 2, 4), rtol=1e-5)
    assert np.ptp(np.asarray(shared.current)[:, :2], axis=1).max() > 1e-3
    group = np.asarray(shared.voltage)[:, :2]
    assert np.ptp(group, axis=1).max() < 2e-3  # cells in parallel have one voltage


def test_own_cells_have_their_own_capacity_resistance_and_charge():
    alike = Own.of(jnp.array([0.8, 0.8, 0.7]))
    own = replace(
        alike,
        log_capacity=jnp.log(jnp.array([1.0, 0.9, 1.0])),
        log_resistance=jnp.log(jnp.array([1.0, 1.0, 1.5])),
        offset=jnp.asarray(-2.0),
    )
    network = CircuitNetwork.create(cell(), 5.0, own=own)
    known = Known(np.full(3, 4.0, "f4"), np.full(3, 25.0, "f4"), *np.full((2, 3), np.nan, "f4"))
    pack, state = network.bind(Wiring.of(parse("3s")), known)
    np.testing.assert_allclose(pack.capacity, [5.0, 4.5, 5.0], rtol=1e-6)
    np.testing.assert_allclose(pack.resistance, [1.0, 1.0, 1.5], rtol=1e-6)
    np.testing.assert_allclose(state.cells.charge.soc, [0.8, 0.8, 0.7], rtol=1e-6)
    assert float(pack.unseen) == pytest.approx(-0.1)  # two hundredths of 5 A


def test_logs_of_two_rates_tell_that_the_current_sensor_is_off():
    """What a counter misses of the slow discharge is more than what it misses of the fast one."""
    true = CircuitNetwork.create(cell(), 5.0, own=replace(Own.of(jnp.array([0.95, 0.9])), offset=jnp.asarray(-0.6)))
    batches = []
    for rate, steps in ((0.3, 360), (1.5, 80)):
        current = np.full(steps, -5.0 * rate)
        current[0] = 0.0
        unknown = np.full((steps, 2), np.nan)
        known = Known(np.full(2, 4.1), np.full(2, 25.0), *np.full((2, 2), np.nan))
        blank = PackLog("", parse("2s"), logs()[0].cell, known, current, np.full(steps, 25.0), 30.0, unknown, unknown)
        batches.append([replace(blank, name=str(rate), voltage=np.asarray(predict(true, [blank])[0].voltage, float))])
    start = CircuitNetwork.create(cell(), 5.0, own=Own.of(jnp.array([0.95, 0.9])))
    found = fit_packs(start, batches, [], PackPlan(updates=600, every=600, learning_rate=2e-2, forget=0.0)).model
    assert float(found.own.offset) == pytest.approx(-0.6, abs=0.1)
    assert root_mean_square(found, batches[0]) < 1.0 < root_mean_square(start, batches[0])


def test_training_learns_and_an_interrupted_run_ends_where_a_whole_one_does(tmp_path):
    batches = [short(), short(seed=21)]
    start = CircuitNetwork.create(cell(), demo_circuit().capacity_ah)
    plan = PackPlan(updates=8, every=4, learning_rate=3e-2, forget=0.5)
    whole = fit_packs(start, batches, short(seed=31), plan)
    assert root_mean_square(whole.model, batches[0]) < root_mean_square(start, batches[0])
    path = tmp_path / "state.safetensors"

    class Stop(Exception):
        pass

    def interrupt(progress):
        raise Stop

    with pytest.raises(Stop):
        fit_packs(start, batches, short(seed=31), plan, checkpoint=path, report=interrupt)
    went_on = fit_packs(start, batches, short(seed=31), plan, checkpoint=path, resume=True)
    for one, other in zip(jax.tree.leaves(whole.model), jax.tree.leaves(went_on.model), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(CelltwinError, match="another run"):
        fit_packs(start, batches[:1], [], plan, checkpoint=path, resume=True)
    with pytest.raises(CelltwinError, match="differ in topology"):
        fit_packs(start, [short(), short()[:1]], [], plan)


def test_a_perfect_forecast_scores_perfectly_and_a_wrong_one_does_not():
    log = logs()[1]
    truth = predict(told(), [log])[0]._replace(voltage=log.truth["voltage"], soc=log.truth["soc"])
    right = score.score(log, truth)
    assert right["weakest_right"]
    assert right["end_error"] == 0.0
    assert right["rmse"] == pytest.approx(2.0, abs=0.3)  # the sensors' noise
    assert right["soc_rmse"] == 0.0
    late = score.score(log, truth._replace(voltage=log.truth["voltage"] + 0.3))
    assert late["end_error"] > 0.005
    order = np.argsort(log.truth["voltage"][score.end_of(log, log.truth["voltage"]).sample])
    turned = score.score(
        log, truth._replace(voltage=log.truth["voltage"][:, np.argsort(order[::-1])][:, np.argsort(order)])
    )
    assert not turned["weakest_right"]
    total = score.summary([right, late])
    assert total["end_within_1_percent"] in (0.5, 1.0)
    assert total["rmse"] == pytest.approx((right["rmse"] + late["rmse"]) / 2)


def test_limits_let_one_cell_in_a_hundred_pass():
    draw_ = np.random.default_rng(0)
    healthy = [score.Signs(*draw_.normal(size=(3, 50))) for _ in range(100)]
    limit = score.limits(healthy)
    assert limit.resistance == pytest.approx(2.33, abs=0.15)


def test_the_benchmark_of_packs_from_draw_to_page(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from celltwin import cli
    from celltwin.packs import draw as drawing

    Sizes = study.Sizes
    monkeypatch.setattr(study, "TRAINED", NAMES)
    monkeypatch.setattr(study, "OTHERS", ("2p2s",))
    monkeypatch.setattr(study, "LARGE", "4s2p")
    monkeypatch.setattr(drawing, "SAMPLES", 200)
    monkeypatch.setattr(pack_benchmark, "GRAPH", PackPlan(updates=10, every=10))
    monkeypatch.setattr(study, "Sizes", lambda *sizes: Sizes(1, 1, 1, 1))
    monkeypatch.setattr(pack_benchmark, "FAULTS", {"loose joint": Fault("loose joint", 0.03, 360.0)})
    where = ["benchmark", "--task", "pack", "--quick", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(cli.app, [*where, "--models", "pack-circuit,pack-graph"])
    assert done.exit_code == 0, done.output
    metrics = pack_benchmark.files.read_json(tmp_path / "run" / "metrics.json")
    assert [m["name"] for m in metrics["models"]] == ["pack-circuit", "pack-graph"]
    assert set(metrics["models"][0]["sets"]) == {"known topologies", "4s2p", "other topologies"}
    assert metrics["faults"][0]["packs"] == 6
    assert {row["set"] for row in metrics["sensors"]} == set(metrics["models"][0]["sets"])
    assert all(0.0 < row["both"] < 500.0 for row in metrics["sensors"])
    assert "pack-graph" in done.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "heat-figure" in page
    assert "loose joint" in page
    assert [row["heard"] for row in metrics["forecasts"][:4]] == ["nothing yet", "an earlier discharge", "25 %", "50 %"]
    assert "What is known of the end" in page
    assert "Fewer sensors" in page
    again = CliRunner().invoke(cli.app, where)
    assert again.exit_code == 2
    unknown = CliRunner().invoke(cli.app, ["benchmark", "--task", "pack", "--models", "pack-grph"])
    assert unknown.exit_code == 2


def test_the_measured_string_is_a_dataset(shared_data, monkeypatch):
    monkeypatch.setenv("CELLTWIN_DATA", str(shared_data))
    dataset = datasets.load("examples/datasets/nissan_leaf.toml")
    split = dataset.split()
    assert (len(split.train), len(split.test)) == (2, 1)
    assert all(isinstance(r, PackRecord) and r.group_voltage.shape[1] == 6 for r in dataset.records)
    cells = datasets.characterisation_of_pack(dataset)
    assert sorted(r.ambient_degC for r in cells) == [10.0, 25.0, 40.0]
    bare = replace(dataset, description=dataset.description.model_copy(update={"identification": None}))
    with pytest.raises(CelltwinError, match="what its cells are like"):
        datasets.characterisation_of_pack(bare)
