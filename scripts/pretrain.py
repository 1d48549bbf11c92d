"""Trains the twins that come with the package, scores them on cycles they never saw, and writes their model cards.

    python scripts/pretrain.py [--only lg_18650hg2/soc] [--data lg_18650hg2=FOLDER ...]

A dataset is downloaded by name unless a folder is given for it. Training repeats itself to the bit on one machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from celltwin import files, jobs
from celltwin.data import datasets
from celltwin.evaluation import robustness
from celltwin.learning.training import Progress
from celltwin.twin import PRETRAINED, Twin

TWINS = {
    "lg_18650hg2/soc": "soc-fused",
    "panasonic_18650pf/soc": "soc-fused",
}
LARGEST = 1_000_000  # bytes


def train(model: str, data: str) -> tuple[Twin, datasets.Dataset]:
    """The model with seed 0, and what it is built on."""
    dataset = datasets.load(data)
    split = dataset.split(None)
    made = None
    for job in jobs.jobs_of([model], [0], False, split):
        made = jobs.train(job, dataset, split, made, listen=_told)
    assert made is not None
    return made, dataset


def _told(name: str, share: float, progress: Progress | None) -> None:
    if progress is not None:
        print(f"{name} round {progress.round}/{progress.rounds}: validation {progress.validate:.2f}", flush=True)


def soc_table(one: Twin, dataset: datasets.Dataset) -> list[str]:
    """Mean absolute errors of every condition, in points."""
    entries = robustness.score(one, dataset.split(None).test)
    lines = ["| condition | MAE, points | worst after 100 s | within 95 % band |", "|---|---|---|---|"]
    for entry in entries:
        o = entry["overall"]
        lines.append(f"| {entry['name']} | {o['mae']:.2f} | {o['max_settled']:.1f} | {100 * o['coverage']:.0f} % |")
    return [f"Mean over starts at 0, 25, 50 and 75 %: **{robustness.headline(entries):.2f} points**.", "", *lines]


def card(name: str, one: Twin, dataset: datasets.Dataset, size: int) -> str:
    """The model card as Markdown."""
    ranges = one.domain.ranges()
    split = one.card["split"]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{one.card['title']}. Says state of charge of the {dataset.cell.name} ({dataset.cell.chemistry}).",
            "",
            f'- Load it with `celltwin.load("{name}")`; {one.card["parameters"]:,} trained parameters, {size:,} bytes.',
            f"- Data: {one.card['citation']}; licence {one.card['licence']}.",
            f"- Trained on {', '.join(split['train'])}.",
            f"- Best round chosen on {', '.join(split['validate'])}; scored below on {', '.join(split['test'])}.",
            f"- One seed ({one.card['seed']}). Made by `python scripts/pretrain.py --only {name}`.",
            "- Trained for "
            + ", ".join(f"{k} {np.round(low, 2):g} to {np.round(high, 2):g}" for k, (low, high) in ranges.items())
            + ". Outside, the twin says so (`in_domain`).",
            "- For one type of cell, new, of one lot. Not a safety function.",
            "",
            "## Scored on the test cycles",
            "",
            *soc_table(one, dataset),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=TWINS)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER")
    given = parser.parse_args()
    folders = dict(item.split("=", 1) for item in given.data)
    for name in given.only or TWINS:
        source = name.split("/")[0]
        one, dataset = train(TWINS[name], folders.get(source, source))
        path = PRETRAINED / f"{name}.twin"
        size = one.save(path).stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{path} is {size} bytes, more than {LARGEST}")
        files.write_text(Path(path).with_suffix(".md"), card(name, one, dataset, size))
        print("written", path)


if __name__ == "__main__":
    main()
