"""The page and the terminal table show what is in the run folder, all of it, safely, and nothing else."""

import base64
import copy
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from celltwin.errors import CelltwinError
from celltwin.evaluation import report
from celltwin.evaluation.report import figures

SAMPLES = 4000
NASTY = "LA92 </script><img src=x onerror=alert(1)>"
RECORDS = [("LA92", -20.0, "test"), (NASTY, 25.0, "test"), ("Mixed1", 25.0, "validate")]
MODELS = {"hold": 300.0, "thevenin": 30.0, "hybrid": 12.0}  # mV of error on every sample; hold does not train


def error_millivolt(model: str, number: int, seed: int) -> np.ndarray:
    """Alternating in sign, so that RMSE, MAE and the worst sample are all the same known number."""
    sign = np.where(np.arange(SAMPLES) % 2, 1.0, -1.0)
    return (MODELS[model] + number + 0.5 * seed) * sign


def row(model: str, number: int, seed: int) -> dict:
    cycle, ambient, split = RECORDS[number]
    size = float(np.abs(error_millivolt(model, number, seed)).max())
    row = {"cycle": cycle, "cell": "", "ambient_degC": ambient, "split": split, "seed": seed, "n": SAMPLES}
    row |= dict.fromkeys(("rmse", "mae", "max", "p99", "rmse_transient"), size)
    return row | {"rmse_rest": None, "nrmse": 0.0123, "r2": 0.9876, "bias": -0.25, "out_of_domain": 0.05}


def model_run(name: str) -> dict:
    trained = name != "hold"
    seeds = [0, 1] if trained else [0]
    rows = [row(name, number, seed) for seed in seeds for number in range(len(RECORDS))]
    means = [np.mean([r["rmse"] for r in rows if r["split"] == "test" and r["seed"] == seed]) for seed in seeds]
    model = {
        "name": name,
        "title": f"the {name} & its title",
        "trained": trained,
        "parameters": 2345 if trained else 0,
        "training_seconds": 301.2 if trained else None,
        "microseconds_per_step": 1.87,
        "seeds": seeds,
        "twin": f"twins/{name}-0.twin",
        "rows": rows,
        "overall": {
            "rmse": float(np.mean(means)),
            "rmse_std": float(np.std(means, ddof=1)) if trained else None,
            "mae": 11.11,
            "max": 123.4,
            "p99": 45.6,
        },
    }
    if trained:
        epochs = [{"epoch": k, "train_rmse": 50.0 / k, "validate_rmse": 60.0 / k, "seconds": 1.0} for k in (1, 2)]
        model["history"] = {str(seed): epochs for seed in seeds}
    if name == "thevenin":
        model["curves"] = {
            "soc": [0.0, 1.0],
            "temperature_degC": [-20, 25],
            "ocv_volt": [[3.0, 4.1], [3.0, 4.2]],
            "r0_ohm": [[0.09, 0.08], [0.03, 0.02]],
            "r_total_ohm": [[0.12, 0.1], [0.05, 0.04]],
        }
    return model


@pytest.fixture
def metrics() -> dict:
    return {
        "task": "voltage",
        "celltwin": "0.1.0",
        "created": "2026-11-22T01:02:03Z",
        "seconds": 812.0,
        "dataset": {
            "name": "Cells <of> the test",
            "cell": {
                "name": "NCR18650PF",
                "chemistry": "NCA",
                "nominal_capacity_ah": 2.9,
                "reference_capacity_ah": 2.78,
                "voltage_limits_volt": [2.5, 4.2],
            },
            "licence": "CC BY 4.0",
            "citation": "Nobody & Co. (2026)",
            "split": {"train": ["Mixed2 25degC"], "validate": ["Mixed1 25degC"], "test": ["LA92 -20degC"]},
        },
        "models": [model_run(name) for name in MODELS],
    }


def write_predictions(run: Path, name: str) -> None:
    time = np.arange(SAMPLES) * 1.0
    tables = []
    for number, (cycle, ambient, split) in enumerate(RECORDS):
        voltage = 4.0 - time / SAMPLES
        voltage[1234] = 2.345678  # an extreme that thinning must keep
        columns = {
            "record": [f"A/{ambient:g}/{cycle}"] * SAMPLES,
            "cycle": [cycle] * SAMPLES,
            "ambient_degC": np.full(SAMPLES, ambient),
            "split": [split] * SAMPLES,
            "test_time_second": time,
            "voltage_volt": voltage,
            "current_ampere": np.sin(time / 50) - 1,
            "temperature_t1_celsius": ambient + time / 500,
            "soc": 1 - time / SAMPLES,
            "simulated_voltage_volt": voltage + error_millivolt(name, number, 0) / 1000,
            "in_domain": time < 3000,
        }
        tables.append(pa.table(columns))
    (run / "predictions").mkdir(exist_ok=True)
    pq.write_table(pa.concat_tables(tables), run / "predictions" / f"{name}.parquet")


@pytest.fixture
def run(tmp_path: Path, metrics: dict) -> Path:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"learning_rate": 0.00375, "note": "<i>"}', encoding="utf-8")
    (tmp_path / "environment.json").write_text('{"python": "3.12.4", "jax": "0.10.9"}', encoding="utf-8")
    for name in MODELS:
        write_predictions(tmp_path, name)
    return tmp_path


def page(run: Path) -> str:
    """The page without plotly.js, whose 5 MB hold what the tests look for."""
    return report.write(run).read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def data(text: str) -> dict:
    """The block of JSON that the figures are drawn from."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def table(text: str, name: str) -> list[list[str]]:
    """The body of a table as text, a list a line."""
    found = re.search(rf'<table[^>]*id="{name}".*?</table>', text, re.DOTALL)
    assert found is not None
    lines = re.findall(r"<tr.*?</tr>", found[0].partition("</thead>")[2], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
    return [[html.unescape(re.sub(r"<.*?>", "", cell)) for cell in line] for line in cells]


def floats(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), "<f4")


def test_page_loads_nothing_from_outside(run: Path) -> None:
    whole = report.write(run).read_text(encoding="utf-8")
    assert whole.count(get_plotlyjs()) == 1
    rest = whole.replace(get_plotlyjs(), "")
    assert not re.search(r"<script[^>]+src|<link|@import|url\(|https?://|<img|<iframe", rest)
    assert "default-src 'none'" in rest
    assert "showSendToCloud: false" in rest


def test_page_says_that_training_was_cut_short(run: Path) -> None:
    assert "to try out and not to judge" not in report.write(run).read_text(encoding="utf-8")
    told = json.loads((run / "metrics.json").read_text()) | {"quick": True}
    (run / "metrics.json").write_text(json.dumps(told))
    assert "to try out and not to judge" in report.write(run).read_text(encoding="utf-8")


def test_page_is_written_where_asked_and_leaves_no_parts(run: Path, tmp_path: Path) -> None:
    assert report.write(run) == run / "report.html"
    out = tmp_path / "elsewhere" / "page.html"
    assert report.write(run, out) == out
    assert out.read_bytes() == (run / "report.html").read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_failed_write_keeps_the_old_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report.write(run).read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(CelltwinError, match="no space left"):
        report.write(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".*"))


def test_leaderboard_of_the_page_is_that_of_the_metrics(run: Path) -> None:
    lines = table(page(run), "board")
    # Errors are the model's, +1 on the second record, +0.5 with the second seed: spread 0.5 / sqrt(2).
    common = ["123.4", "45.6", "11.1"]
    assert lines == [
        ["hybridthe hybrid & its title", "12.8 ± 0.4", "12.2 ± 0.4", "13.2 ± 0.4", *common, "2,345", "301.2", "1.87"],
        [
            "theveninthe thevenin & its title",
            "30.8 ± 0.4",
            "30.2 ± 0.4",
            "31.2 ± 0.4",
            *common,
            "2,345",
            "301.2",
            "1.87",
        ],
        ["Baselines, not trained"],
        ["holdthe hold & its title", "300.5", "300.0", "301.0", *common, "0", "–", "1.87"],
    ]


def test_best_is_marked_among_trained_models_only(run: Path) -> None:
    board = re.search(r'<table[^>]*id="board".*?</table>', page(run), re.DOTALL)
    assert board is not None
    best = re.findall(r'<td data-v="([^"]*)" class="best">', board[0])
    assert best[:3] == ["12.75", "12.25", "13.25"]
    assert "0" not in best


def test_every_row_and_number_is_in_the_full_table(run: Path, metrics: dict) -> None:
    text = page(run)
    lines = table(text, "rows")
    assert len(lines) == sum(len(model["rows"]) for model in metrics["models"])
    expected = ["hybrid", NASTY, "25", "test", "1", "13.50", "13.50", "13.5", "13.5", "13.50", "–"]
    assert [*expected, "−0.25", "0.0123", "0.9876", "5.00", "4,000"] in lines


def test_cycles_lead_to_their_records(run: Path) -> None:
    text = page(run)
    assert table(text, "cycles") == [
        ["LA92", "−20 °C", "12.2 ± 0.4", "30.2 ± 0.4", "300.0"],
        [NASTY, "25 °C", "13.2 ± 0.4", "31.2 ± 0.4", "301.0"],
    ]
    records = data(text)["records"]
    found = re.findall(r'<tr data-record="(\d+)"><th scope="row"><button class="link">(.*?)</button>', text)
    assert [(records[int(k)]["cycle"], html.unescape(name)) for k, name in found] == [("LA92", "LA92"), (NASTY, NASTY)]


def test_cells_that_share_cycle_and_temperature_keep_to_their_own_rows(run: Path, metrics: dict) -> None:
    split_of = {"A": "test", "": "test", "B": "validate", "C": "validate"}
    path = run / "predictions" / "hybrid.parquet"
    source = pq.read_table(path).slice(0, SAMPLES)
    rows, tables = [], []
    for number, (cell, split) in enumerate(split_of.items()):
        rows.append(row("hybrid", 0, 0) | {"cell": cell, "split": split, "rmse": 12.0 + number})
        columns = {name: source[name] for name in source.column_names}
        columns |= {"record": [f"{cell}/n20degC/LA92"] * SAMPLES, "split": [split] * SAMPLES}
        error = (12.0 + number) * np.where(np.arange(SAMPLES) % 2, 1e-3, -1e-3)
        columns["simulated_voltage_volt"] = source["voltage_volt"].to_numpy() + error
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path)
    hybrid = metrics["models"][2] | {"rows": rows[::-1]}
    (run / "metrics.json").write_text(json.dumps(metrics | {"models": [hybrid]}), encoding="utf-8")
    text = page(run)
    found = {record["label"]: record["models"]["hybrid"]["rmse"] for record in data(text)["records"]}
    assert found == {f"{cell}/n20degC/LA92": 12.0 + number for number, cell in enumerate(split_of)}
    assert "give the RMSE of metrics.json in all 4 cases" in text
    keys = [tuple(record["key"]) for record in data(text)["records"]]
    linked = re.findall(r'<tr data-record="(\d+)">', text)
    assert [keys[int(k)][0] for k in linked] == ["", "A"]


def test_curves_hold_every_model_and_record_thinned_with_extremes(run: Path) -> None:
    block = data(page(run))
    assert [model["name"] for model in block["models"]] == ["hybrid", "thevenin", "hold"]
    assert [record["label"] for record in block["records"]] == ["A/-20/LA92", f"A/25/{NASTY}", "A/25/Mixed1"]
    for number, record in enumerate(block["records"]):
        measured = floats(record["measured"]["y"])
        assert 1000 < measured.size <= figures.POINTS_PER_CURVE
        assert measured.min() == np.float32(2.345678)
        minutes = floats(record["measured"]["x"])
        assert minutes[0] == 0.0
        assert minutes[-1] == pytest.approx((SAMPLES - 1) / 60)
        for name, curves in record["models"].items():
            error = floats(curves["error"]["y"])
            assert np.abs(error).max() == pytest.approx(MODELS[name] + number, rel=1e-5)
            assert curves["rmse"] == MODELS[name] + number
            assert curves["outside"] == [[pytest.approx(2999 / 60, abs=1e-3), pytest.approx(3999 / 60, abs=1e-3)]]


def test_residuals_are_those_of_the_test_split(run: Path) -> None:
    residuals = data(page(run))["residuals"]
    assert set(residuals) == set(MODELS)
    for name, size in MODELS.items():
        for band in residuals[name].values():
            assert len(band["x"]) >= 10
            assert max(band["high"]) == size + 1  # 2 more on the validation record
            assert min(band["low"]) == -size - 1
            assert all(-1e-9 <= abs(median) <= size + 1 for median in band["median"])


def test_bands_are_percentiles_of_each_bin() -> None:
    rng = np.random.default_rng(0)
    x, error = rng.uniform(0, 1, 20_000), rng.normal(size=20_000)
    band = figures.bands(np.append(x, np.nan), np.append(10 * np.round(x, 6) + error, 1e9))
    assert band is not None
    for centre, low, median, high in zip(*band.values(), strict=True):
        assert median == pytest.approx(10 * centre, abs=0.3)
        assert low == pytest.approx(median - 1.645, abs=0.45)
        assert high == pytest.approx(median + 1.645, abs=0.45)


@pytest.mark.parametrize("size", [1, 7, 100, 101, 997, 5000])
def test_thinning_keeps_ends_extremes_and_the_limit(size: int) -> None:
    y = np.random.default_rng(size).normal(size=size)
    y[size // 3 : size // 3 + size // 10] = np.nan
    chosen = figures.thin(y, 100)
    assert chosen.size <= 100
    assert (np.diff(chosen) > 0).all()
    assert {0, size - 1} <= set(chosen.tolist())
    if not np.isnan(y).all():
        assert np.nanmin(y[chosen]) == np.nanmin(y)
        assert np.nanmax(y[chosen]) == np.nanmax(y)


def test_text_of_others_is_escaped(run: Path) -> None:
    text = page(run)
    assert "<img" not in text
    assert "Cells &lt;of&gt; the test" in text
    assert "Nobody &amp; Co. (2026)" in text
    assert "&quot;&lt;i&gt;&quot;" in text
    assert text.count("</script>") == 3  # of the data, of plotly.js and of the page


def test_header_config_and_environment_are_shown(run: Path) -> None:
    text = html.unescape(page(run))
    for part in ("NCR18650PF, NCA", "2.900 Ah nominal, 2.780 Ah reference", "2.50 – 4.20 V", "13.5 min", "CC BY 4.0"):
        assert part in text
    for part in ("2026-11-22 01:02:03 UTC", "0.1.0", "3.12.4", '"learning_rate": 0.00375', '"jax": "0.10.9"'):
        assert part in text
    assert "1 for training, 1 for validation, 1 for the test" in text


def test_findings_say_what_speaks_for_and_against(run: Path) -> None:
    text = html.unescape(page(run))
    for part in (
        '<li class="good">hybrid has 23.6 times less error than the best baseline, hold (300.5 mV).',
        '<li class="good">The lead over thevenin is 18.00 mV, more than twice the spread over seeds (0.50 mV).',
        '<li class="warn">5.00 % of the test samples lie outside the training domain of hybrid.',
        '<li class="note">hybrid is weakest at 25 °C: 13.2 mV.',
        '<li class="good">The stored predictions give the RMSE of metrics.json in all 9 cases.',
    ):
        assert part in text


def test_findings_warn(run: Path, metrics: dict) -> None:
    hold, thevenin, hybrid = metrics["models"]
    hold["overall"]["rmse"] = 5.0
    thevenin["overall"]["rmse"] = hybrid["overall"]["rmse"] + 0.5
    thevenin["rows"][0]["rmse"] = None
    hybrid["rows"][0]["rmse"] = 99.0
    metrics["dataset"]["split"]["train"].append("LA92 -20degC")
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    text = html.unescape(page(run))
    for part in (
        '<li class="bad">No trained model beats the baseline hold (5.0 mV).',
        '<li class="warn">The lead over thevenin is 0.50 mV, within twice the spread over seeds',
        '<li class="bad">thevenin: 1 of 4 test rows have no finite RMSE.',
        '<li class="bad">Test cycles that training or validation saw too: LA92 -20degC.',
        '<li class="bad">The stored predictions give another RMSE than metrics.json for hybrid on A/-20/LA92.',
    ):
        assert part in text
    # The mean at the temperature of the row without a number is not that of the others.
    assert table(text, "board")[1][1:3] == ["13.2 ± 0.4", "–"]


def test_optional_parts_may_be_missing(tmp_path: Path) -> None:
    bare = {"task": "voltage", "celltwin": "0.1.0", "dataset": {"name": "bare"}, "models": [{"name": "hybrid"}]}
    (tmp_path / "metrics.json").write_text(json.dumps(bare), encoding="utf-8")
    text = page(tmp_path)
    for part in (
        "none with a finite RMSE",
        "hybrid: no test rows",
        "holds no predictions",
        "No model in this run holds curves",
        "No training history",
        "config.json is not in the run folder",
        "environment.json is not in the run folder",
    ):
        assert part in text
    assert data(text)["records"] == []


def test_predictions_of_one_model_may_be_missing(run: Path) -> None:
    (run / "predictions" / "thevenin.parquet").unlink()
    assert set(data(page(run))["records"][0]["models"]) == {"hybrid", "hold"}


def test_diverged_models_come_last_and_break_nothing(run: Path, metrics: dict) -> None:
    hybrid = metrics["models"][2]
    hybrid["overall"] = dict.fromkeys(hybrid["overall"], float("inf")) | {"rmse_std": None}
    for each in hybrid["rows"]:
        each["rmse"] = float("nan")
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    path = run / "predictions" / "hybrid.parquet"
    predictions = pq.read_table(path)
    diverged = pa.array(np.geomspace(1.0, 1e300, predictions.num_rows))
    index = predictions.column_names.index("simulated_voltage_volt")
    pq.write_table(predictions.set_column(index, "simulated_voltage_volt", diverged), path)
    text = page(run)
    lines = table(text, "board")
    assert [line[0].split("the")[0] for line in lines[:2]] == ["", "hybrid"]
    assert lines[1][1:3] == ["∞", "–"]
    assert "hybrid: 4 of 4 test rows have no finite RMSE" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no metrics.json"),
        (b"{", "cannot read"),
        (b"\xff\xfe", "cannot read"),
        (b"[]", "not the result of a voltage benchmark"),
        (b'{"task": "voltage"}', "celltwin: Field required"),
        (b'{"task": "fuel", "celltwin": "", "dataset": {"name": ""}, "models": []}', "task: Input should be 'voltage'"),
        (b'{"task": "pack"}', "no result of a pack benchmark"),
    ],
)
def test_corrupt_metrics_are_refused(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(CelltwinError, match=re.escape(expected)) as caught:
        report.write(tmp_path)
    assert "expected: " in str(caught.value)
    assert "fix: " in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_corrupt_numbers_and_curves_are_named(run: Path, metrics: dict) -> None:
    broken = copy.deepcopy(metrics)
    broken["models"][0]["rows"][1]["rmse"] = "good"
    (run / "metrics.json").write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(CelltwinError, match=r"models\.0\.rows\.1\.rmse"):
        report.write(run)
    metrics["models"][1]["curves"]["r0_ohm"].pop()
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(CelltwinError, match="r0_ohm needs one list over soc"):
        report.write(run)


def test_corrupt_predictions_are_refused(run: Path) -> None:
    path = run / "predictions" / "hybrid.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["soc"]), path)
    with pytest.raises(CelltwinError, match=r"lacks columns.*also soc"):
        report.write(run)
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(CelltwinError, match=r"cannot read .*hybrid\.parquet"):
        report.write(run)


def shown(metrics: dict, width: int = 110) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(report.leaderboard(metrics))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_leaderboard(metrics: dict) -> None:
    lines = [line.split() for line in shown(metrics).splitlines() if line.strip()]
    assert lines[1] == ["Model", "Params", "−20", "°C", "25", "°C", "All", "Worst", "Train", "s", "µs/step"]
    assert lines[3:] == [
        ["hybrid", "2,345", "12.2", "13.2", "12.8", "±0.4", "123", "301", "1.87"],
        ["thevenin", "2,345", "30.2", "31.2", "30.8", "±0.4", "123", "301", "1.87"],
        ["hold", "0", "300.0", "301.0", "300.5", "123", "–", "1.87"],
    ]


def with_bands(metrics: dict, run: Path) -> None:
    """Bands of 20 mV on the hybrid's simulation: metrics and predictions."""
    model = metrics["models"][2]
    shares = {-20.0: 0.8, 25.0: 0.94}
    for entry in model["rows"]:
        entry |= {"coverage": shares[entry["ambient_degC"]], "half_width": 20.0}
    model["overall"] |= {"coverage": 0.87, "half_width": 20.0}
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    path = run / "predictions" / "hybrid.parquet"
    table = pq.read_table(path)
    simulated = table["simulated_voltage_volt"].to_numpy()
    for name, sign in (("voltage_low_volt", -1), ("voltage_high_volt", 1)):
        table = table.append_column(name, pa.array(simulated + sign * 0.02))
    pq.write_table(table, path)


def test_bands_are_shown_where_there_are_any(run: Path, metrics: dict) -> None:
    before = page(run)
    assert 'id="held"' not in before
    assert "Within band (%)" not in before
    assert "Band" not in shown(metrics)
    with_bands(metrics, run)
    text = page(run)
    assert table(text, "held") == [["hybridthe hybrid & its title", "87.0", "80.0", "94.0", "20.0"]]
    assert "Within band (%)" in text
    said = "The 90 % band of hybrid (± 20.0 mV) holds 87.0 % of the test samples, "
    assert f'<li class="warn">{said}from 80.0 % at −20 °C to 94.0 % at 25 °C.</li>' in text
    models = data(text)["records"][0]["models"]
    drawn = {name: floats(models["hybrid"]["simulated"][name]) for name in ("y", "low", "high")}
    np.testing.assert_allclose(drawn["high"] - drawn["y"], 0.02, atol=1e-6)
    np.testing.assert_allclose(drawn["y"] - drawn["low"], 0.02, atol=1e-6)
    assert set(models["thevenin"]["simulated"]) == {"x", "y"}
    lines = [line.split() for line in shown(metrics).splitlines() if line.strip()]
    assert lines[3][:1] + lines[3][-4:] == ["hybrid", "123", "87", "301", "1.87"]
    assert "Band: % of the samples in the 90 % band" in shown(metrics)


def test_errors_on_what_folds_left_out_are_shown_where_there_are_any(run: Path, metrics: dict) -> None:
    assert "Left out of folds" not in page(run)
    metrics["models"][2]["left_out_rmse"] = 14.25
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    assert "Left out of folds (mV)" in page(run)
    rows = [row for row in table(page(run), "board") if len(row) > 1]
    assert [row[4] for row in rows] == ["14.2", "–", "–"]


def test_terminal_leaderboard_fits_in_110_columns(metrics: dict) -> None:
    model = metrics["models"][1]
    model |= {"name": "pack-circuit", "parameters": 123_456, "training_seconds": 12_345.0}
    model["overall"] |= {"rmse": 1234.5, "rmse_std": 12.3, "max": 1234.0, "coverage": 1.0}
    sample = model["rows"][0]
    model["rows"] = [sample | {"ambient_degC": t, "rmse": 1234.5} for t in (-20, -10, 0, 10, 25, 40)]
    del metrics["models"][0], metrics["models"][1:]
    text = shown(metrics)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 110
    assert text.count("1,234") == 8


def test_terminal_leaderboard_shows_names_as_they_are(metrics: dict) -> None:
    metrics["models"][2]["name"] = "[red]net"
    assert "[red]net" in shown(metrics)


def test_terminal_leaderboard_refuses_what_is_no_result() -> None:
    with pytest.raises(CelltwinError, match="not the result of a voltage benchmark"):
        report.leaderboard({"task": "voltage"})


def test_leaderboard_picture_is_self_contained_svg(metrics: dict, tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "board.svg"
    report.leaderboard_svg(metrics, path)
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "@font-face" not in text
    assert "url(http" not in text.replace('url("http', "url(http")
    words = "".join(root.itertext())
    assert "hybrid" in words
    assert "301" in words
    report.leaderboard_svg(metrics, path)
    assert path.read_text(encoding="utf-8") == text
