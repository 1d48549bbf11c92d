"""The page of pack models: the leaderboard, every cell over time, the wiring, and the faults that were found."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from celltwin.errors import CelltwinError
from celltwin.evaluation.report.metrics import number_text
from celltwin.evaluation.report.page import QUICK, Section, document, plain_table, verdict_html
from celltwin.files import read_json

CLOSED_LOOP = (
    "Every score is closed loop: a model knows each cell's voltage, temperature and, where told, its capacity and "
    "resistance at the first sample, and after that the pack's current and the ambient alone. Errors are of every "
    "cell, predicted minus measured, from the first sample to where the first cell is empty."
)
COLUMNS = (
    ("RMSE mV", "rmse", 1, 1.0),
    ("3.3–4.1 V", "rmse_middle", 1, 1.0),
    ("worst mV", "max", 0, 1.0),
    ("SOC points", "soc_rmse", 2, 1.0),
    ("temperature K", "temperature_rmse", 2, 1.0),
    ("weakest named %", "weakest_right", 0, 100.0),
    ("end: median error %", "end_error", 2, 100.0),
    ("end within 1 % of packs", "end_within_1_percent", 0, 100.0),
)


def _columns(metrics: dict[str, Any]) -> list[tuple[str, str, int, float]]:
    sets = [figures for model in metrics["models"] for figures in model["sets"].values()]
    return [column for column in COLUMNS if any(figures.get(column[1]) is not None for figures in sets)]


def _cell(figures: dict[str, Any], key: str, digits: int, scale: float) -> str:
    value = figures.get(key)
    text = "–" if value is None else number_text(scale * value, digits)
    spread = figures.get("rmse_std") if key == "rmse" else None
    return text if spread is None else f"{text} ±{number_text(spread, 1)}"


def pack_leaderboard(metrics: dict[str, Any]) -> Table:
    """The leaderboard for the terminal. Raises CelltwinError for what is no metrics.json of packs."""
    check_packs(metrics, "metrics")
    columns = _columns(metrics)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("test packs", "model"):
        table.add_column(name, style="bold" if name == "model" else "")
    for name, *_ in columns:
        table.add_column(name, justify="right")
    for side in metrics["models"][0]["sets"]:
        ranked = sorted(metrics["models"], key=lambda m: m["sets"][side]["rmse"])
        for number, model in enumerate(ranked):
            figures = model["sets"][side]
            shown = [_cell(figures, key, digits, scale) for _, key, digits, scale in columns]
            table.add_row(f"{side} ({figures['packs']:.0f})" if number == 0 else "", model["name"], *shown)
        table.add_section()
    return table


def check_packs(metrics: Any, where: str) -> None:
    """Raise CelltwinError where this is no metrics.json of packs."""
    if not isinstance(metrics, dict) or metrics.get("task") != "pack" or not metrics.get("models"):
        got = sorted(metrics) if isinstance(metrics, dict) else type(metrics).__name__
        raise CelltwinError(
            f"{where} is no result of a pack benchmark",
            got=got,
            expected="task 'pack' and at least one model",
            fix="run celltwin benchmark --task pack",
        )


def pack_page(metrics: dict[str, Any], run: Path) -> str:
    """The page as HTML, from metrics and the `shown.json` of the run folder, which may be missing."""
    check_packs(metrics, str(run))
    shown = read_json(run / "shown.json") if (run / "shown.json").is_file() else None
    dataset = metrics["dataset"]
    facts = {
        "Packs": "a measured string" if dataset["measured"] else "simulated, of unequal cells",
        "Run": metrics["created"].replace("T", " ").replace("Z", " UTC"),
        "Took": f"{number_text(metrics['seconds'] / 60.0)} min",
        "Training": QUICK if metrics.get("quick") else "",
        "celltwin": metrics["celltwin"],
        "Licence of the data": dataset["licence"],
        "Citation": dataset["citation"],
    }
    listed = "".join(f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items() if v)
    top = (
        f'<header><p class="kicker">Pack benchmark</p><h1>{escape(dataset["name"])}</h1><dl>{listed}</dl>'
        f"<p>{CLOSED_LOOP}</p></header>" + _verdict(metrics)
    )
    return document(f"{dataset['name']} packs", top, _sections(metrics, shown), {"shown": shown}, "pack.js")


def _verdict(metrics: dict[str, Any]) -> str:
    side = next(iter(metrics["models"][0]["sets"]))
    ranked = sorted(metrics["models"], key=lambda m: m["sets"][side]["rmse"])
    best = ranked[0]
    blind = [m for m in ranked if m["name"] not in ("pack-told", "pack-graph")]
    tiles = [("Best model", best["name"], best["title"])]
    tiles += [
        (
            f"RMSE, {name}",
            f"{number_text(f['rmse'], 1)} mV",
            f"{f['packs']:.0f} packs, worst {number_text(f['max'], 0)} mV",
        )
        for name, f in best["sets"].items()
    ]
    findings = []
    for name, f in best["sets"].items():
        if blind and best not in blind:
            rival = min(blind, key=lambda m: m["sets"][name]["rmse"])
            gain = 1.0 - f["rmse"] / rival["sets"][name]["rmse"]
            level = "good" if gain >= 0.4 else "warn"
            text = f"{name}: {100 * gain:.0f} % under {rival['name']}, the best that knows no cell's parameters."
            findings.append((level, text))
        if name != side:
            ratio = f["rmse"] / best["sets"][side]["rmse"]
            findings.append(("good" if ratio <= 1.3 else "warn", f"{name}: {ratio:.2f} times the error on {side}."))
        if f.get("weakest_right") is not None:
            level = "good" if f["weakest_right"] >= 0.95 else "warn"
            findings.append(
                (level, f"{name}: the weakest group is named in {100 * f['weakest_right']:.0f} % of packs.")
            )
    return verdict_html(tiles, findings)


def _sections(metrics: dict[str, Any], shown: Any) -> list[Section]:
    columns, rows = _columns(metrics), []
    for side in metrics["models"][0]["sets"]:
        for model in sorted(metrics["models"], key=lambda m: m["sets"][side]["rmse"]):
            figures = model["sets"][side]
            cells = [_cell(figures, key, digits, scale) for _, key, digits, scale in columns]
            parameters = number_text(model["parameters"], 0)
            rows.append([side, model["name"], *cells, parameters, model["title"]])
    head = ["Test packs", "Model", *(name for name, *_ in columns), "Parameters", "What it is"]
    sections: list[Section] = [
        (
            "leaderboard",
            "Leaderboard",
            f"A discharge ends where the first cell is below {number_text(metrics['cut_off_volt'], 2)} V; the weakest "
            "is the parallel group that ends it. ± is the standard deviation over seeds.",
            plain_table(head, rows),
        )
    ]
    absent = '<p class="muted">The run folder holds no shown.json, so there is nothing to draw here.</p>'
    choose = '<div class="controls"><label>Model <select id="model"></select></label></div>'
    heat = f'{choose}<div class="figure" id="heat-figure"></div>' if shown else absent
    wires = '<div class="figure" id="wires-figure"></div>' if shown else absent
    worst = '<div class="figure" id="worst-figure"></div>' if shown else absent
    name = escape(f"{shown['log']}, {shown['topology']}. ") if shown else ""
    sections += [
        ("cells", "Every cell over time", f"{name}Error of one model in mV: predicted minus measured.", heat),
        (
            "wiring",
            "Wiring",
            "Each cell where it stands: columns are in parallel or strings, rows in series. Colour is its RMSE in mV.",
            wires,
        ),
        ("worst", "The weakest cell", "Measured and simulated voltage of the cell that is lowest at the end.", worst),
    ]
    if metrics["forecasts"]:
        table = [
            [
                row["set"],
                str(row["heard"]),
                number_text(row["rmse"], 1),
                number_text(row.get("rmse_as_told"), 1),  # runs of before have none
                f"{100 * row['weakest_right']:.0f} %",
                "–" if row["end_within_1_percent"] is None else f"{100 * row['end_within_1_percent']:.0f} %",
                number_text(row["packs"], 0),
            ]
            for row in metrics["forecasts"]
        ]
        head = ["Test packs", "Heard", "RMSE of the rest mV", "As told", "Weakest named", "End within 1 %", "Packs"]
        text = (
            f"{escape(str(metrics['uses_by']))}, corrected for each group's capacity, resistance and charge by what "
            "was heard: an earlier discharge of the same pack, or a share of this one and nothing that comes after."
        )
        sections.append(("forecasts", "What is known of the end, and when", text, plain_table(head, table)))
    if metrics["faults"]:
        table = [
            [
                row["fault"],
                number_text(row["size"], 2),
                row.get("known_by", "told"),
                f"{100 * row['detected']:.0f} %",
                f"{100 * row['located']:.0f} %",
                ", ".join(f"{width}p {100 * v:.0f} %" for width, v in row["detected_by_cells_in_parallel"].items()),
                f"{100 * row['false_alarms']:.1f} %",
                number_text(row["packs"], 0),
            ]
            for row in metrics["faults"]
        ]
        head = [
            "Fault",
            "Size",
            "Cells known by",
            "Detected",
            "Strongest sign",
            "By cells in parallel",
            "False alarms",
            "Packs",
        ]
        text = (
            f"From the residual of {escape(str(metrics['uses_by']))}: resistance as a factor, self-discharge in ohm "
            "across the cell, a loose joint in ohm. Capacity and resistance of the cells are what the BMS was told, or "
            "what an earlier discharge of the healthy pack showed. Limits let 1 % of healthy cells pass as faulty; the "
            "false alarms are those on other healthy packs."
        )
        sections.append(("faults", "Faults", text, plain_table(head, table)))
    if metrics["sensors"]:
        table = [
            [
                row["set"],
                f"one group in {row['every']}",
                *(number_text(row[name], 1) for name in ("both", "model", "sensors")),
                f"{100 * row['weakest_right']:.0f} %",
                number_text(row["packs"], 0),
            ]
            for row in metrics["sensors"]
        ]
        head = ["Test packs", "Sensors", "Both mV", "Model alone", "Sensors alone", "Weakest named", "Packs"]
        text = (
            f"RMSE of the groups that have no sensor: {escape(str(metrics['uses_by']))} corrected by what the sensed "
            "groups show of its error, the model alone, and the mean of the sensed groups alone."
        )
        sections.append(("sensors", "Fewer sensors", text, plain_table(head, table)))
    return sections
