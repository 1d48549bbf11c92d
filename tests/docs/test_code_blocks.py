"""Every code block of README.md and of the site runs, or has a comment above it that says why it does not.

The blocks of a page run in one folder and one namespace, one after the other: `python` as it stands, `sh` line by line
(commands of celltwin in this process, make and what it made in a shell), `toml` through the reader that it is for, `c`
through a compiler, beside the headers that the page has exported. What a page takes for granted (`my_dataset`,
`another_log.csv`, `cell.twin`, data sets that would be downloaded) is made of the bundled demo, cut short. Models have
plans of a second and one seed; where a page names no model, the baselines stand for the task's usual ones.
"""

import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from celltwin import cli, experiment, jobs, models, settings
from celltwin.data import datasets, public
from celltwin.deploy import cost, native
from celltwin.evaluation import robustness

REPOSITORY = Path(__file__).parents[2]
GENERATED = {"_build", "jupyter_execute", "notebooks"}
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *(p for p in sorted((REPOSITORY / "docs").rglob("*.md")) if not GENERATED & set(p.relative_to(REPOSITORY).parts)),
]
RUN = {"python", "sh", "toml", "c"}
SHOWN = {"text", "bibtex"}  # what is printed, and what other programs read
MARK = re.compile(r"<!-- not run: (.+) -->")
SHELL = {"make", "cd"}


@dataclass(frozen=True)
class Block:
    """A fenced block, and why it does not run, if so."""

    language: str
    text: str
    line: int
    why: str = ""


def blocks_of(page: Path) -> list[Block]:
    found, why = [], ""
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (mark := MARK.match(token.content.strip())):
            why = mark[1]
            continue
        if token.type == "code_block":
            raise AssertionError(
                f"{page.name}:{(token.map or [0])[0] + 1}: an indented block says no language; fence it"
            )
        if token.type == "fence" and not token.info.startswith("{"):
            found.append(Block(token.info.strip(), token.content, (token.map or [0])[0] + 1, why))
        elif why and not token.type.endswith("_close"):
            raise AssertionError(f"{page.name}: the mark '{why}' stands above no block")
        why = ""
    return found


BLOCKS = {page: blocks_of(page) for page in PAGES}
WITH_CODE = [page for page in PAGES if any(block.language in RUN for block in BLOCKS[page])]


# --- what pages take for granted --------------------------------------------------------------------------------------

CELL = """
[cell]
name = "demo (simulated LG M50)"
nominal_capacity_ah = 5.0
reference_capacity_ah = 4.9295
voltage_limits_volt = [2.5, 4.2]

[records]
files = "*/*.csv"

[split]
train = ["Mixed*"]
validate = ["UDDS"]
test = ["LA92", "US06"]
"""


def write_csv(record, path: Path, current: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = replace(record, current=current * record.current, net_capacity=None).table()
    pacsv.write_csv(table, path)


@pytest.fixture(scope="session")
def stage(tmp_path_factory, tiny_plans):
    """A folder of stand-ins: read it, copy it, do not change it."""
    folder = tmp_path_factory.mktemp("stage")
    home = Path(datasets.__file__).parent / "demo"
    demo = datasets.load("demo")
    cut = folder / "demo"
    for record in demo.records:
        path = (
            cut
            / "drive_1hz"
            / record.group
            / f"{record.ambient_degC:g}degC".replace("-", "n")
            / f"{record.name}.parquet"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        record.between(0, 600).save(path)
    shutil.copytree(home / "characterisation", cut / "characterisation")
    shutil.copy(home / "dataset.toml", cut)

    cycles = {r.key: r for r in demo.records}
    mine = folder / "my_dataset"
    names = {"Mixed1": "Mixed1", "Mixed2": "Mixed2", "UDDS": "UDDS", "US06": "US06", "LA92": "WLTC"}
    for ambient in ("25degC", "5degC"):
        for name, of in names.items():
            write_csv(cycles[f"A/{ambient}/{of}"].between(0, 600), mine / ambient / f"{name}.csv")
    (mine / "dataset.toml").write_text(CELL, encoding="utf-8")

    us06 = cycles["A/25degC/US06"].between(0, 600)
    for name in ("log.csv", "my_log.csv", "another_log.csv", "25degC/US06.csv"):
        write_csv(us06, folder / name)
    write_csv(us06, folder / "discharge_positive.csv", current=-1.0)
    odd = replace(us06, net_capacity=None).table()
    odd = odd.set_column(1, "Klemme 1", pc.multiply(odd["voltage_volt"], 1e3))
    odd = odd.set_column(3, "Fühler A", pc.add(pc.multiply(odd["temperature_t1_celsius"], 1.8), 32.0))
    pacsv.write_csv(odd.set_column(2, "Shunt 3", odd["current_ampere"]), folder / "odd_names.csv")
    pulses = {
        "25degC/HPPC": "A/25degC/HPPC",
        "25degC/C20": "A/25degC/C20",
        "n10degC/HPPC": "A/n10degC/HPPC",
        "cell_a/25degC/HPPC": "A/25degC/HPPC",
        "cell_a/25degC/C20": "A/25degC/C20",
        "cell_b/25degC/HPPC": "B/25degC/HPPC",
        "cell_b/25degC/C20": "B/25degC/C20",
    }
    for name, of in pulses.items():
        target = folder / f"{name}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        record = datasets.importers.load(home / "characterisation" / f"{of}.parquet")
        write_csv(record, target)

    dataset = datasets.load(mine)
    family = models.family("ohmic")
    twin = jobs.train(jobs.Job(family, 0, None), dataset, dataset.split())
    twin.save(folder / "cell.twin")
    shutil.copy(home / "circuit.json", folder / "cell.json")
    return folder


@pytest.fixture
def at_stage(stage, tmp_path, monkeypatch):
    """A copy of the stage to stand in; data sets that would be downloaded, and the demo, are on it."""
    here = tmp_path / "stage"
    shutil.copytree(stage, here, ignore=shutil.ignore_patterns("demo"))
    monkeypatch.chdir(here)
    demo, find = stage / "demo" / "dataset.toml", datasets._find
    monkeypatch.setattr(public, "fetch", lambda name, **options: stage / "my_dataset")
    monkeypatch.setattr(datasets, "_find", lambda where: demo if str(where) == "demo" else find(where))
    monkeypatch.setattr(cli, "DEFAULT_MODELS", {"voltage": "hold,ohmic", "soc": "soc-coulomb,soc-ocv"})
    monkeypatch.setattr(cost, "available", lambda: False)  # the tests of it are elsewhere
    starts = partial(robustness.score, conditions=robustness.CONDITIONS[:4])
    monkeypatch.setattr(robustness, "score", starts)
    registered = dict(models._families)
    yield here
    models._families.clear()
    models._families.update(registered)


# --- how a block runs -------------------------------------------------------------------------------------------------


def run_sh(text: str, page: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] in SHELL:
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{page}: {line}\n{done.stderr}"
            continue
        assert words[0] == "celltwin", f"{page}: '{line}' is no command of celltwin: mark the block with the reason"
        if "--seeds" in words:
            words[words.index("--seeds") + 1] = "1"
        arguments = [str(p) for w in words[1:] for p in (sorted(Path().glob(w)) if "*.csv" in w else [w])]
        done = CliRunner().invoke(cli.app, arguments)
        assert done.exit_code == 0, f"{page}: {line}\n{done.output}\n{done.exception!r}"


def run_toml(text: str) -> None:
    if named := re.match(r"# (\w+\.toml)\n", text):
        Path(named[1]).write_text(text, encoding="utf-8")
    path = Path("block.toml")
    path.write_text(text, encoding="utf-8")
    content = tomllib.loads(text)
    if "cell" in content:
        assert settings.read(path, datasets.DatasetFile).cell.reference_capacity_ah > 0
    elif "dataset" in content:
        assert experiment.load(path).dataset
    else:
        assert set(content) == {"training"}, "a block of toml that no reader of celltwin reads"
        assert experiment.plan_changes(path)


def run_c(text: str) -> None:
    compiler = native.compiler()
    if compiler is None:
        pytest.skip("no C compiler")
    headers = sorted(Path().glob("*/*.h"))
    assert headers, "the page shows C but exports none before"
    lines = [f'#include "{h}"' for h in headers] + ["#include <math.h>"]
    head = "void block(float voltage, float current, float temperature, float dt);\n"
    head += "void block(float voltage, float current, float temperature, float dt) {\n"
    Path("block.c").write_text("\n".join(lines) + f"\n{head}{text}\n}}\n", encoding="utf-8")
    done = subprocess.run([*compiler, "-std=c99", "-I.", "-fsyntax-only", "block.c"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(block: Block, page: str, namespace: dict) -> None:
    match block.language:
        case "python":
            exec(compile("\n" * block.line + block.text, page, "exec"), namespace)
        case "sh":
            run_sh(block.text, page)
        case "toml":
            run_toml(block.text)
        case "c":
            run_c(block.text)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_blocks_of_a_page_run(page, at_stage, capsys):
    name, namespace = str(page.relative_to(REPOSITORY)), {"__name__": "__main__"}
    code = [block for block in BLOCKS[page] if block.language in RUN]
    ran = 0
    for block in code:
        if not block.why:
            run(block, f"{name}:{block.line}", namespace)
            ran += 1
    assert ran == sum(not block.why for block in code)
    with capsys.disabled():
        print(f"\n{name}: {ran} of {len(code)} blocks ran", *(f"; not: {b.why}" for b in code if b.why), end="")


def test_every_block_has_a_language_that_is_run_or_shown():
    found = [(page.name, b.line, b.language) for page, blocks in BLOCKS.items() for b in blocks]
    assert not [place for place in found if place[2] not in RUN | SHOWN]


def test_few_blocks_are_marked_and_each_says_why():
    code = [block for blocks in BLOCKS.values() for block in blocks if block.language in RUN]
    marked = [block for block in code if block.why]
    assert all(len(block.why.split()) >= 3 for block in marked)
    assert len(marked) <= len(code) // 4


def test_the_two_commands_of_the_readme_are_there():
    commands = [b.text.strip() for b in BLOCKS[REPOSITORY / "README.md"] if b.language == "sh"][:2]
    assert [c.split(" && ")[-1] for c in commands] == [".venv/bin/celltwin benchmark", ".venv/bin/pytest -n 2"]


def test_what_is_not_celltwin_and_not_marked_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="mark the block"):
        run_sh("curl example.org", "page")


def test_a_mark_above_nothing_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it takes sixteen minutes -->\n\nProse.\n")
    with pytest.raises(AssertionError, match="above no block"):
        blocks_of(page)
