"""The page of an identification says what was found, what is in doubt, and draws what it was given."""

import base64
import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

import pulses
from celltwin.evaluation.report import identified
from celltwin.evaluation.report.identification import identification_page
from celltwin.learning.identification import identify

KNOWN = pulses.random_cell(4, pairs=1)
NASTY = "HPPC </script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def found():
    logs = [pulses.hppc(KNOWN, t, period=1.0, levels=(1.0, 0.8, 0.5, 0.2), seed=int(t)) for t in (10.0, 25.0)]
    return identify([*logs, pulses.slow_discharge(KNOWN)], KNOWN.cell, pairs=1)


@pytest.fixture(scope="module")
def page(found):
    return identification_page(found, [NASTY, "C20 25degC"], "2 log files")


def data(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_resistances_between_nodes(found):
    circuit = found.circuit
    for r in identified.resistances(circuit, 0.5):
        assert r.r0 == pytest.approx(float(KNOWN.r0(0.5, r.temperature)), rel=0.1)
        assert r.total == pytest.approx(
            float(KNOWN.r0(0.5, r.temperature) + KNOWN.r(0.5, r.temperature).sum()), rel=0.1
        )
        assert r.total_error >= r.r0_error > 0.0
    node = identified.resistances(circuit, float(circuit.soc[1]))
    np.testing.assert_allclose([r.r0 for r in node], circuit.r0[1])
    np.testing.assert_allclose([r.r0_error for r in node], circuit.standard_error["r0"][1])


def test_a_circuit_without_standard_errors_has_none(found):
    bare = replace(found.circuit, standard_error={})
    assert all(np.isnan(r.r0_error) and np.isnan(r.total_error) for r in identified.resistances(bare, 0.5))
    text = identification_page(replace(found, circuit=bare), ["HPPC"], "1 log file")
    assert data(text)["tables"][0]["relative"][0][0] is None


def test_the_page_is_one_file_that_loads_nothing(page):
    assert len(page) < 6e6
    assert "default-src 'none'" in page
    assert page.count("</script>") == 3
    assert "<img" not in page
    own = page.replace(re.search(r"<script>/\*\*.*?</script>", page, re.DOTALL)[0], "")
    assert not re.search(r'(src|href)="http', own)


def test_facts_candidates_and_runs_are_shown(found, page):
    text = html.unescape(page)
    for part in (KNOWN.name, f"{KNOWN.capacity_ah:.3f} Ah", f"{1e3 * found.rmse:.2f} mV", "2 log files"):
        assert part in text
    assert f"{len(found.circuit.soc)}" in text
    assert "1 (chosen)" in text
    for candidate in found.candidates:
        assert f"{1e3 * candidate.rmse:.2f}" in text
    for run, simulated in zip(found.runs, found.simulated, strict=True):
        assert f"{1e3 * identified.rmse_of(run, simulated):.2f}" in text


@pytest.mark.parametrize(
    ("efficiency", "said"), [(0.998, "of the slow cycle"), (0.94, "not plausible"), (np.nan, "needs")]
)
def test_an_implausible_efficiency_is_said(found, efficiency, said):
    assert said in identification_page(replace(found, coulombic_efficiency=efficiency), ["HPPC"], "1 log file")


def test_what_the_data_cannot_tell_comes_first(found):
    notes = ("capacity 1 Ah: slow discharge", "R3 is hardly known (standard error over 50 %): at 3 % <b>")
    text = identification_page(replace(found, circuit=replace(found.circuit, notes=notes)), ["HPPC"], "1 log file")
    assert '<li class="warn">R3 is hardly known (standard error over 50 %): at 3 % &lt;b&gt;</li>' in text
    assert '<li class="note">capacity 1 Ah: slow discharge</li>' in text
    assert text.index("R3 is hardly known") < text.index("capacity 1 Ah")
    text = identification_page(replace(found, circuit=replace(found.circuit, notes=())), ["HPPC"], "1 log file")
    assert "No parameter is unknown" in text


def test_the_figures_hold_the_tables(found, page):
    circuit, block = found.circuit, data(page)
    assert block["temperatures"] == circuit.temperatures.tolist()
    tables = {table["name"]: table for table in block["tables"]}
    names = {"R0", "R1", "τ1"} | ({"Rct"} if circuit.transfer_resistance is not None else set())
    assert set(tables) == names
    np.testing.assert_allclose(tables["R0"]["values"], 1e3 * circuit.r0.T, rtol=1e-4)
    np.testing.assert_allclose(tables["τ1"]["values"], circuit.tau[0].T, rtol=1e-4)
    relative = (circuit.standard_error["r0"] / circuit.r0).T
    np.testing.assert_allclose(tables["R0"]["relative"], relative, rtol=1e-3)


def test_the_figures_hold_rests_and_slow_branches(found, page):
    ocv = data(page)["ocv"]
    assert sum(len(each["rests"]["soc"]) for each in ocv["each"]) == len(found.rests)
    (branch,) = [b for each in ocv["each"] for b in each["branches"]]
    assert branch["name"] == "C/20 discharge"
    assert len(branch["soc"]) == identified.MOST_POINTS
    known = KNOWN.ocv(np.array(branch["soc"]), 25.0)
    middle = np.abs(np.array(branch["soc"]) - 0.5) < 0.3
    below = (known - np.array(branch["voltage"]))[middle]
    assert np.all((below > -5e-3) & (below < 0.03))  # V: the overpotential of C/20
    assert not any("gap" in each for each in ocv["each"])


def test_a_slow_cycle_shows_its_gap(found):
    down = found.slow[0]
    up = replace(down, current=-down.current, charge_ah=-down.charge_ah, voltage=down.voltage + 0.02)
    (each,) = [e for e in identified.figures(replace(found, slow=(down, up)))["ocv"]["each"] if "gap" in e]
    np.testing.assert_allclose(each["gap"], 20.0, atol=0.01)
    np.testing.assert_allclose(each["average"]["voltage"], each["branches"][0]["voltage"] + 0.01, atol=2e-5)


def test_the_figures_hold_the_runs_and_pulses_in_them(found, page):
    for shown, run, simulated in zip(data(page)["runs"], found.runs, found.simulated, strict=True):
        np.testing.assert_allclose(floats(shown["measured"]), run.voltage, atol=1e-6)
        np.testing.assert_allclose(floats(shown["simulated"]), simulated, atol=1e-6)
        assert shown["rmse"] == pytest.approx(1e3 * identified.rmse_of(run, simulated), abs=0.01)
        assert len(shown["zooms"]) >= 3
        for zoom in shown["zooms"]:
            assert zoom["from"] < zoom["begin"] < zoom["to"]
            at = int(np.searchsorted(run.time - run.time[0], zoom["begin"] + 0.5))
            assert run.current[at] == pytest.approx(-2.0 * KNOWN.capacity_ah, rel=0.01)  # the strongest there


def test_long_runs_are_thinned_and_keep_their_worst_sample(found, monkeypatch):
    monkeypatch.setattr(identified, "POINTS_IN_PAGE", 600)
    runs = identified.figures(found)["runs"]
    assert sum(len(floats(run["time"])) for run in runs) <= 600
    for shown, run, simulated in zip(runs, found.runs, found.simulated, strict=True):
        error = np.abs(floats(shown["simulated"]) - floats(shown["measured"]))
        assert np.nanmax(error) == pytest.approx(np.nanmax(np.abs(simulated - run.voltage)), abs=1e-6)


def test_the_activation_energy_is_that_of_the_line(found):
    lines = {(line["name"], line["soc"]): line for line in identified.figures(found)["arrhenius"]}
    assert lines["R0", 0.5]["energy"] == pytest.approx(KNOWN.activation[0] / 1e3, abs=8.0)


def test_logs_of_one_temperature_have_no_arrhenius_line(found):
    one = [r for r in found.runs if r.ambient_degC == 25.0]
    alone = identify([*one], KNOWN.cell, pairs=1)
    text = identification_page(alone, ["HPPC"], "1 log file")
    assert data(text)["arrhenius"] == []
    assert "The logs are of one temperature" in text
