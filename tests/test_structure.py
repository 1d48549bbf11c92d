"""Modules import only from those before them; heavy extras are imported by nobody until they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import celltwin

SOURCE = Path(celltwin.__file__).parent

# The one order in which modules may know of each other: each imports only from lines above its own.
ORDER = [
    "celltwin",
    "celltwin.errors",
    "celltwin.files",
    "celltwin.settings",
    "celltwin.data",
    "celltwin.data.record",
    "celltwin.data.sign",
    "celltwin.data.columns",
    "celltwin.data.sheets",
    "celltwin.data.repair",
    "celltwin.data.importers",
    "celltwin.data.fobss",
    "celltwin.data.inspection",
    "celltwin.data.domain",
    "celltwin.data.splits",
    "celltwin.data.public",
    "celltwin.data.datasets",
    "celltwin.interface",
    "celltwin.physics",
    "celltwin.physics.recurrence",
    "celltwin.physics.charge",
    "celltwin.physics.tables",
    "celltwin.physics.ocv",
    "celltwin.physics.circuit",
    "celltwin.physics.hysteresis",
    "celltwin.physics.thevenin",
    "celltwin.physics.rest",
    "celltwin.physics.hysteretic",
    "celltwin.physics.topology",
    "celltwin.physics.network",
    "celltwin.physics.pack",
    "celltwin.physics.thermal",
    "celltwin.physics.thermal_fit",
    "celltwin.physics.demand",
    "celltwin.physics.phrase",
    "celltwin.physics.cycler",
    "celltwin.physics.outcome",
    "celltwin.physics.operation",
    "celltwin.exchange.lookup",
    "celltwin.exchange.reduction",
    "celltwin.exchange.document",
    "celltwin.exchange.expression",
    "celltwin.exchange.foreign",
    "celltwin.exchange.ecm_ps",
    "celltwin.exchange.nrel",
    "celltwin.exchange.pybamm",
    "celltwin.exchange.bpx",
    "celltwin.exchange.solution",
    "celltwin.exchange",
    "celltwin.fleet",
    "celltwin.packs",
    "celltwin.packs.log",
    "celltwin.packs.draw",
    "celltwin.learning",
    "celltwin.learning.plan",
    "celltwin.learning.bands",
    "celltwin.learning.physics",
    "celltwin.learning.identification.segments",
    "celltwin.learning.identification.curves",
    "celltwin.learning.identification.pairs",
    "celltwin.learning.identification.refine",
    "celltwin.learning.identification",
    "celltwin.models.layers",
    "celltwin.models.bounds",
    "celltwin.models.aged",
    "celltwin.models.ensemble",
    "celltwin.models.baselines",
    "celltwin.models.features",
    "celltwin.models.ripple",
    "celltwin.models.narx",
    "celltwin.models.regression",
    "celltwin.models.narx_poly",
    "celltwin.models.edmd",
    "celltwin.models.hybrid",
    "celltwin.models.circuit_neural",
    "celltwin.models.gru",
    "celltwin.models.koopman",
    "celltwin.models.lstm",
    "celltwin.models.subnet",
    "celltwin.models.pack_circuit",
    "celltwin.models.pack_graph",
    "celltwin.models.pack_lstm",
    "celltwin.models",
    "celltwin.estimators.signals",
    "celltwin.estimators.network",
    "celltwin.estimators.lstm",
    "celltwin.estimators.gru",
    "celltwin.estimators.convlstm",
    "celltwin.estimators.convlstm_reference",
    "celltwin.estimators.tcn",
    "celltwin.estimators.feedforward",
    "celltwin.estimators.attention",
    "celltwin.estimators.linear_recurrent",
    "celltwin.estimators.coulomb",
    "celltwin.estimators.kalman",
    "celltwin.estimators.pulling",
    "celltwin.estimators.observer",
    "celltwin.estimators",
    "celltwin.learning.tasks",
    "celltwin.learning.training",
    "celltwin.learning.pack_training",
    "celltwin.learning.transfer",
    "celltwin.packs.study",
    "celltwin.packs.score",
    "celltwin.packs.sensing",
    "celltwin.packs.adapting",
    "celltwin.twin",
    "celltwin.adaptation",
    "celltwin.evaluation",
    "celltwin.evaluation.protocol",
    "celltwin.evaluation.robustness",
    "celltwin.evaluation.report.metrics",
    "celltwin.evaluation.report.figures",
    "celltwin.evaluation.report.findings",
    "celltwin.evaluation.report.tables",
    "celltwin.evaluation.report.page",
    "celltwin.evaluation.report.soc_metrics",
    "celltwin.evaluation.report.soc_figures",
    "celltwin.evaluation.report.soc_findings",
    "celltwin.evaluation.report.soc_tables",
    "celltwin.evaluation.report.soc_page",
    "celltwin.evaluation.report.identified",
    "celltwin.evaluation.report.identification",
    "celltwin.evaluation.report.pack_page",
    "celltwin.evaluation.runs",
    "celltwin.evaluation.report.runs_page",
    "celltwin.evaluation.report.terminal",
    "celltwin.evaluation.report",
    "celltwin.deploy",
    "celltwin.deploy.program",
    "celltwin.deploy.emit",
    "celltwin.deploy.rules",
    "celltwin.deploy.replay",
    "celltwin.deploy.c",
    "celltwin.deploy.native",
    "celltwin.simulator",
    "celltwin.deploy.cost",
    "celltwin.deploy.stream",
    "celltwin.deploy.onnx_rules",
    "celltwin.deploy.onnx",
    "celltwin.deploy.fmu",
    "celltwin.experiment",
    "celltwin.jobs",
    "celltwin.sklearn",
    "celltwin.benchmark",
    "celltwin.pack_benchmark",
    "celltwin.tracking",
    "celltwin.console",
    "celltwin.identify_command",
    "celltwin.deploy_command",
    "celltwin.ensemble_command",
    "celltwin.shown",
    "celltwin.fit_command",
    "celltwin.runs_command",
    "celltwin.studio",
    "celltwin.studio.uploads",
    "celltwin.studio.trainer",
    "celltwin.studio.whatif",
    "celltwin.studio.session",
    "celltwin.studio.pack",
    "celltwin.studio.figures",
    "celltwin.studio.export",
    "celltwin.studio.guard",
    "celltwin.studio.frame",
    "celltwin.studio.log_tab",
    "celltwin.studio.twin_tab",
    "celltwin.studio.view_tab",
    "celltwin.studio.whatif_tab",
    "celltwin.studio.export_tab",
    "celltwin.studio.server",
    "celltwin.studio_command",
    "celltwin.cli",
]


def module_of(path: Path) -> str:
    parts = ("celltwin", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCE.rglob("*.py")}


def imported(tree: ast.AST) -> set[str]:
    """Modules of the package that a module imports anywhere in it, under if and in functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where something comes from"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return {name for name in found if name.split(".")[0] == "celltwin"}


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(MODULES)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    before = set(ORDER[: ORDER.index(module)])
    wrong = imported(ast.parse(MODULES[module].read_text(encoding="utf-8"))) - before
    assert not wrong, f"{module} may not import {', '.join(sorted(wrong))}: see ORDER"


def test_this_test_sees_imports():
    source = "import celltwin.cli\nfrom celltwin import twin\ndef f():\n    from celltwin.data.record import Record"
    assert imported(ast.parse(source)) == {"celltwin.cli", "celltwin.twin", "celltwin.data.record"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_command_line_imports_no_extra():
    loaded = set(run("import sys, celltwin.cli; print(*sys.modules)").split())
    assert "celltwin.benchmark" in loaded
    assert not loaded & {"pybamm", "fastsim", "bdf", "batterydf", "torch", "pandas", "matplotlib", "IPython"}
    assert not loaded & {"onnx", "onnxruntime", "fmpy", "nicegui", "uvicorn"}


def test_importing_the_package_costs_nothing():
    assert not set(run("import sys, celltwin; print(*sys.modules)").split()) & {"jax", "numpy", "equinox"}


def test_pickle_is_nowhere():
    for name, path in MODULES.items():
        names = {n.id for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Name)}
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, name
        assert "allow_pickle=True" not in text, name
        assert not names & {"eval", "exec"}, name
