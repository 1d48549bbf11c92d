"""The page and the terminal table of estimators show what is in the run folder, all of it, safely, and nothing else."""

import base64
import copy
import html
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from celltwin.errors import CelltwinError
from celltwin.evaluation import report
from celltwin.evaluation.report import figures
from celltwin.evaluation.report.soc_metrics import check_estimates

SAMPLES = 4000
NASTY = "LA92 </script><img src=x onerror=alert(1)>"
RECORDS = [("LA92", -20.0), (NASTY, 25.0)]
STARTS = (0.0, 0.25, 0.5, 0.75)
CONDITIONS = [
    *(("start", f"start at {100 * start:.0f} %", 0.3 * k) for k, start in enumerate(STARTS)),
    ("stored", "stored -20 points", 1.0),
    ("sensor", "current -0.10 A", 2.0),
    ("oddity", "of a kind <i>unknown</i>", 0.1),
]
MODELS = {"soc-coulomb": 3.0, "soc-ekf": 1.2, "soc-net": 0.6}  # points of error on every sample; coulomb does not train


def size_of(model: str, number: int, seed: int, more: float) -> float:
    """Points of error on every sample of a record under a condition."""
    return MODELS[model] + number + 0.2 * seed + more


def row(model: str, number: int, seed: int, condition: tuple[str, str, float]) -> dict:
    cycle, ambient = RECORDS[number]
    group, name, more = condition
    size = size_of(model, number, seed, more)
    row = {"condition": name, "group": group, "seed": seed, "cycle": cycle, "cell": "A", "ambient_degC": ambient}
    row |= {"mae": size, "rmse": size + 0.01, "max": size + 9.0, "max_settled": size + 4.0, "p99": size + 0.02}
    # 0.9 and 0.7 of the labels are in the band: on average 0.8, and of those of the network 0.96 and 0.9.
    coverage = (0.96, 0.9)[number] if model == "soc-net" else (0.9, 0.7)[number]
    row |= {"n": SAMPLES, "bias": -0.25, "coverage": coverage, "nees": 1.25, "mean_std": 0.77}
    return row | {"out_of_domain": 0.05, "return_second": 300.0 if number == 0 else None}


def estimator(name: str) -> dict:
    trained = name != "soc-coulomb"
    seeds = [0, 1] if trained else [0]
    rows = [row(name, n, seed, c) for seed in seeds for c in CONDITIONS for n in range(len(RECORDS))]
    heads = [np.mean([r["mae"] for r in rows if r["seed"] == seed and r["group"] == "start"]) for seed in seeds]
    full = [r for r in rows if r["condition"] == "start at 0 %"]
    return {
        "name": name,
        "title": f"the {name} & its title",
        "trained": trained,
        "parameters": 2345 if trained else 99,
        "training_seconds": 301.2 if trained else 0.0,
        "microseconds_per_step": 1.87,
        "seeds": seeds,
        "twin": f"twins/{name}-0.twin",
        "history": {
            str(seed): [{"epoch": k, "train": -0.5 / k, "validate": 6.5 / k, "seconds": 1.0} for k in (1, 2)]
            if trained
            else []
            for seed in seeds
        },
        "rows": rows,
        "overall": {
            "headline": float(np.mean(heads)),
            "headline_std": float(np.std(heads, ddof=1)) if trained else None,
            "mae": float(np.mean([r["mae"] for r in full])),
            "rmse": 1.11,
            "max": 99.9,
            "max_settled": 7.77,
            "coverage": {"soc-coulomb": 1.0, "soc-ekf": 0.8, "soc-net": 0.93}[name],
            "nees": 1.25,
        },
        "weight_bytes": 9380,
        "state_bytes": 260,
    }


@pytest.fixture
def metrics() -> dict:
    return {
        "task": "soc",
        "celltwin": "0.1.0",
        "created": "2026-11-22T01:02:03Z",
        "seconds": 812.0,
        "dataset": {
            "name": "Cells <of> the test",
            "cell": {"name": "NCR18650PF", "chemistry": "NCA", "reference_capacity_ah": 2.78},
            "licence": "CC BY 4.0",
            "citation": "Nobody & Co. (2026)",
            "split": {"train": ["Mixed2 25degC"], "validate": ["Mixed1 25degC"], "test": ["LA92 -20degC"]},
        },
        "models": [estimator(name) for name in MODELS],
    }


def write_estimates(run: Path, name: str) -> None:
    tables = []
    for start in (0.0, 0.5):
        for number, (cycle, ambient) in enumerate(RECORDS):
            time = np.arange(int(start * SAMPLES), SAMPLES) * 1.0
            soc = 1 - time / SAMPLES
            size = size_of(name, number, 0, 0.6 if start else 0.0)
            error = np.where(np.arange(len(time)) % 2, size, -size)
            std = np.full(len(time), 0.02)
            std[777] = 0.345678  # an extreme that thinning must keep
            columns = {
                "record": [f"A/{ambient:g}/{cycle}"] * len(time),
                "cycle": [cycle] * len(time),
                "ambient_degC": np.full(len(time), ambient),
                "start": np.full(len(time), start),
                "test_time_second": time,
                "voltage_volt": 3.0 + soc,
                "current_ampere": np.sin(time / 50) - 1,
                "temperature_t1_celsius": ambient + time / 500,
                "soc": soc,
                "estimated_soc": soc + error / 100,
                "soc_std": std,
                "in_domain": time < 3000,
            }
            tables.append(pa.table(columns))
    (run / "predictions").mkdir(exist_ok=True)
    pq.write_table(pa.concat_tables(tables), run / "predictions" / f"{name}.parquet")


def save(run: Path, metrics: dict) -> None:
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path, metrics: dict) -> Path:
    save(tmp_path, metrics)
    (tmp_path / "config.json").write_text('{"learning_rate": 0.00375, "note": "<i>"}', encoding="utf-8")
    (tmp_path / "environment.json").write_text('{"python": "3.12.4", "jax": "0.10.9"}', encoding="utf-8")
    for name in MODELS:
        write_estimates(tmp_path, name)
    return tmp_path


def page(run: Path) -> str:
    """The page without plotly.js, whose 5 MB hold what the tests look for."""
    return report.write(run).read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def data(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def table(text: str, name: str) -> list[list[str]]:
    """The body of a table as text, a list a line; small print after a bar."""
    found = re.search(rf'<table[^>]*id="{name}".*?</table>', text, re.DOTALL)
    assert found is not None
    lines = re.findall(r"<tr.*?</tr>", found[0].partition("</thead>")[2], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
    return [[html.unescape(re.sub(r"<.*?>", "", cell.replace("<small>", "|"))) for cell in line] for line in cells]


def floats(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), "<f4")


# --- safe and whole --------------------------------------------------------------------------------------------------


def test_page_loads_nothing_from_outside(run: Path) -> None:
    whole = report.write(run).read_text(encoding="utf-8")
    assert whole.count(get_plotlyjs()) == 1
    rest = whole.replace(get_plotlyjs(), "")
    assert not re.search(r"<script[^>]+src|<link|@import|url\(|https?://|<img|<iframe", rest)
    assert "default-src 'none'" in rest


def test_text_of_others_is_escaped(run: Path) -> None:
    text = page(run)
    assert "<img" not in text
    assert "<i>unknown" not in text
    assert "Cells &lt;of&gt; the test" in text
    assert "Nobody &amp; Co. (2026)" in text
    assert "&quot;&lt;i&gt;&quot;" in text
    assert text.count("</script>") == 3  # of the data, of plotly.js and of the page


def test_header_config_and_environment_are_shown(run: Path) -> None:
    text = html.unescape(page(run))
    for part in ("NCR18650PF, NCA", "13.5 min", "CC BY 4.0", "3.12.4", '"learning_rate": 0.00375', '"jax": "0.10.9"'):
        assert part in text
    assert "1 for training, 1 for validation, 1 for the test" in text


# --- tables ----------------------------------------------------------------------------------------------------------


def test_leaderboard_of_the_page_is_that_of_the_metrics(run: Path) -> None:
    # Errors are the model's, +1 on the second record, +0.2 with the second seed: spread 0.2 / sqrt(2); +0.3 a start.
    rest = ["7.77", "1.11"]
    size = ["2,345", "9,380", "260", "1.87", "301.2"]

    def line(name: str, base: float, seeds: int, coverage: str, sizes: list[str]) -> list[str]:
        tail = "| ± 0.14" if seeds == 2 else ""
        base += 0.1 * (seeds - 1)
        means = [base + 0.95, *(base + 0.5 + 0.3 * k for k in range(4)), base, base + 1.0]
        points = [f"{mean:.2f}{tail}" for mean in means]
        return [f"{name}|the {name} & its title", *points, *rest, coverage, "1.25", *sizes]

    assert table(page(run), "board") == [
        line("soc-net", 0.6, 2, "93.0", size),
        line("soc-ekf", 1.2, 2, "80.0", size),
        ["Baselines, not trained"],
        line("soc-coulomb", 3.0, 1, "100.0", ["99", "9,380", "260", "1.87", "0.0"]),
    ]


def test_best_is_marked_among_trained_estimators_and_by_what_is_good(run: Path) -> None:
    board = re.search(r'<table[^>]*id="board".*?</table>', page(run), re.DOTALL)
    assert board is not None
    best = re.findall(r'<td data-v="([^"]*)" class="best">', board[0])
    assert float(best[0]) == pytest.approx(1.65)
    assert "0.93" in best  # of the labels in the band: nearer to 0.95 than 0.8, and than the baseline's 1.0
    assert not {"0.8", "1.0", "99"} & set(best)


def test_robustness_is_the_mean_over_records_and_seeds(run: Path) -> None:
    lines = {line[0]: line[1:] for line in table(page(run), "robustness")}
    # soc-net, soc-ekf, soc-coulomb: mean error; worst sample later than 100 s, mean over seeds; share in the band.
    assert lines["start at 25 %"] == ["1.50|6.0 · 93 %", "2.10|6.6 · 80 %", "3.80|8.3 · 80 %"]
    assert lines["current −0.10 A"] == ["3.20|7.7 · 93 %", "3.80|8.3 · 80 %", "5.50|10.0 · 80 %"]
    assert lines["of a kind <i>unknown</i>"][0] == "1.30|5.8 · 93 %"
    assert lines["stored −20 points"][0] == "2.20|6.7 · 93 %|back 5.0 min|2 of 4"
    assert lines["Conditions over 2 points"] == ["3", "5", "7"]
    assert lines["… of them with less than 85 % in the band"] == ["0", "5", "7"]


def test_conditions_stand_in_groups(run: Path) -> None:
    titles = [line[0] for line in table(page(run), "robustness") if len(line) == 1]
    assert [title.split()[0] for title in titles] == ["Woken", "Woken", "One", "oddity"]


def test_errors_that_are_not_owned_up_to_are_outlined(run: Path) -> None:
    found = re.search(r'<table[^>]*id="robustness".*?</table>', page(run), re.DOTALL)
    assert found is not None
    line = re.search(r"<tr><th[^>]*>start at 25 %.*?</tr>", found[0], re.DOTALL)
    assert line is not None
    marks = [re.search(r'class="([^"]*)"', cell) for cell in re.findall(r"<td[^>]*>", line[0])]
    assert [mark and mark[1] for mark in marks] == ["least", "untold", "untold"]
    heats = [float(heat) for heat in re.findall(r"--heat:([\d.]+)", line[0])]
    assert heats == [pytest.approx(math.log(v / 0.3) / math.log(10 / 0.3), abs=0.006) for v in (1.5, 2.1, 3.8)]


def test_worst_and_times_that_are_missing_are_left_out(metrics: dict) -> None:
    short = metrics["models"][0]
    for each in short["rows"]:
        each["return_second"] = None
        if each["ambient_degC"] == 25.0:
            each["max_settled"] = None  # the record ended sooner
    stress = check_estimates(metrics, "").models[0].stresses["stored", "stored -20 points"]  # type: ignore[index]
    assert (stress.worst, stress.returned, stress.back, stress.runs) == (pytest.approx(8.0), None, 0, 2)


def test_every_row_is_in_the_block_of_all_rows(run: Path, metrics: dict) -> None:
    text = page(run)
    columns = data(text)["rows"]
    ranked = [metrics["models"][k] for k in (2, 1, 0)]
    rows = [each | {"model": model["name"]} for model in ranked for each in model["rows"]]
    for name, column in columns.items():
        expected = [each[name] for each in rows]
        if isinstance(expected[0], float):
            expected = [value if value is None else pytest.approx(value, rel=1e-5) for value in expected]
        assert column == expected, name
    unseen = set(metrics["models"][0]["rows"][0]) - set(columns)
    assert unseen == {"group"}
    headings = re.findall(r'data-field="(\w+)"', text)
    assert headings == list(columns)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_dots_are_the_table_of_robustness(run: Path) -> None:
    block = data(page(run))
    assert [c["group"] for c in block["conditions"]] == [group for group, _, _ in CONDITIONS]
    assert block["limit"] == 2.0
    dots = block["stresses"]["soc-ekf"]
    assert [dot["mae"] for dot in dots] == pytest.approx([1.8 + more for _, _, more in CONDITIONS])
    assert [dot["untold"] for dot in dots] == [1.8 + more > 2.0 for _, _, more in CONDITIONS]
    assert dots[0]["spread"] == pytest.approx(0.2 / math.sqrt(2))
    assert (dots[0]["worst"], dots[0]["coverage"]) == (pytest.approx(6.3), pytest.approx(0.8))


def test_curves_hold_every_estimator_record_and_start_thinned_with_extremes(run: Path) -> None:
    block = data(page(run))
    assert [(r["label"], r["start"]) for r in block["records"]] == [
        (f"A/{ambient:g}/{cycle}", start) for cycle, ambient in RECORDS for start in (0.0, 0.5)
    ]
    assert block["band"] == 1.96
    for record in block["records"]:
        number = 0 if record["ambient"] < 0 else 1
        labelled = floats(record["labelled"]["y"])
        assert labelled[0] == 100 * (1 - record["start"])
        assert floats(record["labelled"]["x"])[0] == pytest.approx(record["start"] * SAMPLES / 60)
        for name, curves in record["models"].items():
            x, soc, error, std = (floats(curves[key]) for key in ("x", "soc", "error", "std"))
            assert 500 < x.size <= figures.POINTS_PER_CURVE
            assert x.size == soc.size == error.size == std.size
            size = size_of(name, number, 0, 0.6 if record["start"] else 0.0)
            assert np.abs(error).max() == pytest.approx(size, rel=1e-4)
            assert std.max() == pytest.approx(34.5678, rel=1e-6)
            np.testing.assert_allclose(soc - error, 100 * (1 - 60 * x / SAMPLES), atol=1e-3)
            assert curves["mae"] == pytest.approx(size)
            assert curves["outside"] == [[pytest.approx(2999 / 60, abs=1e-3), pytest.approx(3999 / 60, abs=1e-3)]]


def test_residuals_are_those_of_all_samples(run: Path) -> None:
    residuals = data(page(run))["residuals"]
    assert set(residuals) == set(MODELS)
    for name in MODELS:
        for band in residuals[name].values():
            assert len(band["x"]) >= 10
            assert max(band["high"]) == pytest.approx(MODELS[name] + 1.6, rel=1e-4)
            assert min(band["low"]) == pytest.approx(-MODELS[name] - 1.6, rel=1e-4)


def test_training_is_that_of_each_seed(run: Path) -> None:
    history = data(page(run))["history"]
    assert set(history) == {"soc-net", "soc-ekf"}
    assert history["soc-net"]["1"][1] == {"epoch": 2, "train": -0.25, "validate": 3.25}


# --- findings --------------------------------------------------------------------------------------------------------


def test_tiles_name_the_best_by_its_headline(run: Path) -> None:
    text = html.unescape(page(run))
    tiles = re.findall(r'<div class="tile"><span>(.*?)</span><b>(.*?)</b><small>(.*?)</small>', text)
    assert [tile[1] for tile in tiles] == [
        "soc-net",
        "1.65 ± 0.14 points",
        "1.20 points",
        "7.77 points",
        "93.0 %",
        "1.87 µs a step",
    ]
    assert tiles[1][2] == "woken at 0/25/50/75 % of the cycle"
    assert tiles[3][2] == "6.60 points over all starts"  # 0.6 + 1 + 0.1 + 0.9 + 4


def test_findings_say_what_speaks_for_and_against(run: Path) -> None:
    text = html.unescape(page(run))
    for part in (
        '<li class="good">soc-net has 2.4 times less error than the best baseline, soc-coulomb (3.95 points).',
        '<li class="good">The lead over soc-ekf is 0.60 points, more than twice the spread over seeds (0.20 points).',
        '<li class="good">Over all starts 93.0 % of the labels lie within the 95 % band of soc-net; its squared error '
        "is 1.25 times",
        '<li class="good">soc-net is over 2 points of mean error under 3 of 7 conditions, and says so',
        '<li class="note">Conditions with an error over 2 points that the others do not own up to: soc-ekf 5, '
        "soc-coulomb 7.",
        '<li class="good">soc-net is 1.80 points wrong from starts inside the cycle and 1.20 points from its first',
        '<li class="warn">5.00 % of the test samples lie outside the training domain of soc-net.',
        '<li class="bad">Over all starts soc-net is over 2 points at 25 °C (2.15 points).',
        '<li class="note">What troubles soc-net most is current −0.10 A: 3.20 points.',
        '<li class="warn">Time until soc-net is back under 2 points for good, from a wrong stored value: '
        "stored −20 points: 5.0 min, in 2 of 4 runs.",
        '<li class="good">The stored predictions give the MAE of metrics.json in all 12 cases.',
    ):
        assert part in text


def test_findings_warn(run: Path, metrics: dict) -> None:
    coulomb, ekf, net = metrics["models"]
    for each in net["rows"]:
        each["coverage"] = 0.5
        each["nees"] = 9.0
        if each["condition"] == "start at 0 %":
            each["mae"] = 0.1
    net["overall"] |= {"mae": 0.1, "headline": 1.375}
    coulomb["overall"]["headline"] = 1.9
    ekf["rows"][0]["mae"] = None
    metrics["dataset"]["split"]["train"].append("LA92 -20degC")
    save(run, metrics)
    text = html.unescape(page(run))
    for part in (
        '<li class="bad">Trained and yet no better than the best baseline, soc-coulomb (1.90 points): soc-ekf.',
        '<li class="bad">Over all starts 50.0 % of the labels lie within the 95 % band of soc-net; its squared error '
        "is 9.00 times what it states (NEES): too sure of itself.",
        "its 95 % band holds less than 85 % of the labels under start at 75 % (2.10 points, 50 %); stored −20 points",
        '<li class="warn">soc-net is 1.80 points wrong from starts inside the cycle and 0.10 points from its first '
        "sample: it does better where it can take the cell to be full.",
        '<li class="bad">soc-ekf: 1 of 28 rows have no finite MAE.',
        '<li class="bad">The rows of soc-coulomb give another mean over the starts than its headline.',
        '<li class="bad">Test cycles that training or validation saw too: LA92 -20degC.',
        '<li class="bad">The stored predictions give another MAE than metrics.json for soc-net on A/-20/LA92, start at',
    ):
        assert part in text
    assert "The rows of soc-net" not in text  # (0.1 + 1.5 + 1.8 + 2.1) / 4 is its headline


def test_no_trained_estimator_beats_the_baseline(run: Path, metrics: dict) -> None:
    metrics["models"][0]["overall"]["headline"] = 1.0
    save(run, metrics)
    text = html.unescape(page(run))
    assert '<li class="bad">No trained estimator beats the best baseline, soc-coulomb (1.00 points).' in text
    assert "Trained and yet" not in text


# --- what may be missing or broken -----------------------------------------------------------------------------------


def test_optional_parts_may_be_missing(tmp_path: Path) -> None:
    save(tmp_path, {"task": "soc", "celltwin": "0.1.0", "dataset": {"name": "bare"}, "models": [{"name": "soc-net"}]})
    text = page(tmp_path)
    for part in (
        "none with a finite error",
        "soc-net: no test rows",
        "holds no predictions",
        "No condition was scored",
        "No training history",
        "config.json is not in the run folder",
        "environment.json is not in the run folder",
    ):
        assert part in text
    assert data(text)["records"] == []


def test_predictions_of_one_estimator_may_be_missing(run: Path) -> None:
    (run / "predictions" / "soc-ekf.parquet").unlink()
    block = data(page(run))
    assert set(block["records"][0]["models"]) == {"soc-net", "soc-coulomb"}
    assert set(block["stresses"]) == set(MODELS)


def test_an_estimator_may_lack_a_condition(run: Path, metrics: dict) -> None:
    net = metrics["models"][2]
    net["rows"] = [each for each in net["rows"] if each["group"] != "sensor"]
    save(run, metrics)
    text = page(run)
    lines = {line[0]: line[1:] for line in table(text, "robustness")}
    assert lines["current −0.10 A"][0] == "–"
    assert data(text)["stresses"]["soc-net"][5] is None


def test_diverged_estimators_come_last_and_break_nothing(run: Path, metrics: dict) -> None:
    net = metrics["models"][2]
    net["overall"] = dict.fromkeys(net["overall"])
    for each in net["rows"]:
        each |= dict.fromkeys(("mae", "rmse", "max", "max_settled", "coverage", "nees"))
    save(run, metrics)
    path = run / "predictions" / "soc-net.parquet"
    estimates = pq.read_table(path)
    diverged = pa.array(np.geomspace(1.0, 1e300, estimates.num_rows))
    index = estimates.column_names.index("estimated_soc")
    pq.write_table(estimates.set_column(index, "estimated_soc", diverged), path)
    text = page(run)
    lines = table(text, "board")
    assert [line[0].split("|")[0] for line in lines[:2]] == ["soc-ekf", "soc-net"]
    assert lines[1][1:9] == ["–"] * 8
    assert "soc-net: 28 of 28 rows have no finite MAE" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"task": "soc"}', "not the result of a state-of-charge benchmark; got: celltwin: Field required"),
        (b'{"task": "soc", "celltwin": "1", "dataset": {"name": ""}, "models": 3}', "models: Input should be"),
        (b'{"task": "soc', "cannot read"),
    ],
)
def test_corrupt_metrics_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(CelltwinError, match=re.escape(expected)):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_corrupt_numbers_are_named(run: Path, metrics: dict) -> None:
    broken = copy.deepcopy(metrics)
    broken["models"][0]["rows"][1]["coverage"] = "good"
    save(run, broken)
    with pytest.raises(CelltwinError, match=r"models\.0\.rows\.1\.coverage"):
        report.write(run)


def test_corrupt_predictions_are_refused(run: Path) -> None:
    path = run / "predictions" / "soc-net.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["soc_std"]), path)
    with pytest.raises(CelltwinError, match=r"lacks columns.*also soc_std"):
        report.write(run)
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(CelltwinError, match=r"cannot read .*soc-net\.parquet"):
        report.write(run)


# --- terminal --------------------------------------------------------------------------------------------------------


def shown(metrics: dict[str, Any], width: int = 110) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(report.leaderboard(metrics))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_leaderboard(metrics: dict) -> None:
    lines = [line.split() for line in shown(metrics).splitlines() if line.strip()]
    first = next(k for k, words in enumerate(lines) if words[0] == "Model")
    assert lines[first][1:] == ["All", "Full", "−20", "°C", "25", "°C", "Worst", "Band", "Params", "µs/step"]
    assert lines[first + 2 : first + 5] == [
        ["soc-net", "1.65", "±0.14", "1.20", "0.70", "1.70", "7.77", "93", "2,345", "1.87"],
        ["soc-ekf", "2.25", "±0.14", "1.80", "1.30", "2.30", "7.77", "80", "2,345", "1.87"],
        ["soc-coulomb", "3.95", "3.50", "3.00", "4.00", "7.77", "100", "99", "1.87"],
    ]


def test_terminal_leaderboard_fits_in_110_columns(metrics: dict) -> None:
    model = metrics["models"][1] | {"name": "soc-convlstm", "parameters": 123_456}
    model["overall"] |= {"headline": 12.34, "headline_std": 1.23, "mae": 12.34, "max_settled": 12.34}
    full = model["rows"][0]
    model["rows"] = [full | {"ambient_degC": t, "mae": 12.34} for t in (-20, -10, 0, 10, 25, 40)]
    text = shown(metrics | {"models": [model]})
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 110
    assert text.count("12.34") == 9


def test_terminal_leaderboard_refuses_what_is_no_result() -> None:
    with pytest.raises(CelltwinError, match="not the result of a state-of-charge benchmark"):
        report.leaderboard({"task": "soc"})


def test_leaderboard_picture(metrics: dict, tmp_path: Path) -> None:
    path = tmp_path / "board.svg"
    report.leaderboard_svg(metrics, path)
    assert "soc-coulomb" in path.read_text(encoding="utf-8")
