#!/usr/bin/env python
"""Make the bundled demo data: two simulated LG M50 cells on drive cycles at four ambient temperatures.

    pip install 'celltwin[demo-source]'           # PyBaMM simulates, FASTSim ships the speed schedules
    python scripts/make_demo.py                   # about 40 min of one core; continues where it stopped
    python scripts/make_demo.py --only 'A/25degC/*' --force

Every file is one simulation of PyBaMM's Doyle-Fuller-Newman model in a process of its own. Where that stalls
or fails, the single-particle model with electrolyte takes its place, and SOURCE.md says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pybamm
from scipy.optimize import bisect

DEMO = Path(__file__).resolve().parents[1] / "src" / "celltwin" / "data" / "demo"
PARAMETERS_DOI = "doi:10.1016/j.electacta.2022.140700"
ZERO_CELSIUS, HOUR, MPH = 273.15, 3600.0, 0.44704  # K, s, m/s

NOMINAL_AH = 5.0
FULL_VOLT, EMPTY_VOLT = 4.2, 2.5
DRIVE_CUTOFF_VOLT = 2.8
USED_SHARE = 0.95  # of the reference capacity; a drive cycle ends here or at its cut-off voltage
COOLING_W_M2_K = 50.0
FINE_SECOND = 0.25  # the model's output step in drive cycles, before means over 1 s are logged
VOLTAGE, CURRENT, TEMPERATURE = "Voltage [V]", "Current [A]", "Volume-averaged cell temperature [C]"
MESH = {"x_n": 8, "x_s": 5, "x_p": 8, "r_n": 20, "r_p": 20}
TOLERANCES = {"rtol": 1e-3, "atol": 1e-6}

# The tester's resolution and the standard deviation of its noise.
TESTER = {
    "voltage_volt": (5e-4, 5e-4),
    "current_ampere": (2e-3, 2e-3),
    "temperature_t1_celsius": (0.1, 0.03),
    "net_capacity_ah": (5e-4, 0.0),
}


# What is simulated ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellDesign:
    """How a cell differs from the published parameters of the LG M50."""

    electrode_width: float  # factor: capacity goes with it, resistance against it
    kinetics: float  # factor on both exchange-current densities
    contact_ohm: float


@dataclass(frozen=True)
class Climate:
    """What the vehicle asks of the cell at one ambient temperature."""

    celsius: float
    demand: float  # share of the demand at 25 degC: a cold cell cannot give more
    discharge_limit_c: float  # multiple of the nominal capacity per hour
    regen_limit_c: float  # 0 in the cold: charging would plate lithium


CELLS = {
    "A": CellDesign(electrode_width=1.0, kinetics=1.0, contact_ohm=0.002),
    "B": CellDesign(electrode_width=0.94, kinetics=0.7, contact_ohm=0.008),
}
CLIMATES = {
    "n10degC": Climate(-10.0, 0.5, 0.9, 0.0),
    "5degC": Climate(5.0, 0.7, 1.6, 0.0),
    "25degC": Climate(25.0, 1.0, 3.0, 1.0),
    "40degC": Climate(40.0, 1.0, 3.0, 1.0),
}
VEHICLE_KG = 1800.0
HEAVIEST_C = 1.4  # of the nominal capacity per hour, mean over 3 min at 25 degC
CYCLES = {
    "A": ["WLTC", "US06", "UDDS", "Mixed1", "HWFET", "Mixed2", "Mixed3"],
    "B": ["WLTC", "US06", "UDDS", "Mixed1"],
}
HPPC_CLIMATES = {"A": list(CLIMATES), "B": ["25degC"]}
MIXED_SEEDS = {"Mixed1": 1, "Mixed2": 22, "Mixed3": 5}
# Mixed cycles are shuffled trips of these: none is a part of WLTC, US06 or UDDS, which test and validate.
MIXED_SOURCES = [
    "hwfet",
    "wmtc_all",
    "NREL13",
    "cmap_subset/4115766_2/2007-03-28",
    "cmap_subset/4111928_1/2007-05-19",
]


# From a speed schedule to a cell's current ------------------------------------------------------------------


def speed_schedule(name: str) -> np.ndarray:
    """Speed in m/s, once a second, of a schedule that FASTSim ships."""
    spec = importlib.util.find_spec("fastsim")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("FASTSim is not installed; fix: pip install 'fastsim>=2.1,<3'")
    path = Path(spec.submodule_search_locations[0]) / "resources" / "cycles" / f"{name}.csv"
    table = np.genfromtxt(path, delimiter=",", names=True, encoding="utf-8-sig", dtype=None)
    if "cycMps" in table.dtype.names:
        second, speed = table["cycSecs"], table["cycMps"]
    else:
        second, speed = np.arange(len(table)), table["speed_mph"] * MPH  # recorded every second
    return np.interp(np.arange(second[0], second[-1] + 1), second, speed)


def trips(speed: np.ndarray) -> list[np.ndarray]:
    """The parts of a schedule between two standstills; those of implausible acceleration are left out."""
    starts = np.flatnonzero((speed[:-1] < 0.1) & (speed[1:] >= 0.1))
    parts = np.split(speed, starts)
    return [part for part in parts if 20 <= len(part) <= 900 and np.abs(np.diff(part)).max() < 4.0]


def mixed_schedule(seed: int, seconds: int = 3000) -> np.ndarray:
    """A random sequence of trips from one standstill to the next."""
    random = np.random.default_rng(seed)
    pool = [part for name in MIXED_SOURCES for part in trips(speed_schedule(name))]
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < seconds:
        chosen.append(pool[random.integers(len(pool))])
    return np.concatenate(chosen)


def schedule(cycle: str) -> np.ndarray:
    """Speed in m/s, once a second, of one pass of a cycle."""
    if cycle in MIXED_SEEDS:
        return mixed_schedule(MIXED_SEEDS[cycle])
    if cycle == "WLTC":  # as driven in Japan: without the extra-high phase
        return np.concatenate([speed_schedule(f"wltc_{phase}") for phase in ("low_3", "medium_3b", "high_3b")])
    return speed_schedule(cycle.lower())


def battery_power(speed: np.ndarray) -> np.ndarray:
    """Electrical power in W that a mid-size car takes from its battery, negative when it brakes."""
    rolling_newton, drag, accessories_w = 180.0, 0.42, 300.0
    drive_efficiency, regen_share = 0.88, 0.6
    acceleration = np.diff(speed, prepend=speed[0])
    wheel = (1.05 * VEHICLE_KG * acceleration + rolling_newton * (speed > 0.1) + drag * speed**2) * speed
    return np.where(wheel > 0.0, wheel / drive_efficiency, wheel * regen_share) + accessories_w


def limited(power: np.ndarray, scale: float, climate: Climate) -> np.ndarray:
    """Discharge current in A of a cell that carries `scale` A per W of battery power."""
    limits = -climate.regen_limit_c * NOMINAL_AH, climate.discharge_limit_c * NOMINAL_AH
    return np.clip(climate.demand * scale * power, *limits)


def current_scale(power: np.ndarray) -> float:
    """A per W such that the heaviest 3 min at 25 degC take `HEAVIEST_C` on average."""
    repeated = np.tile(power, 2)

    def heaviest_c(scale: float) -> float:
        used = np.cumsum(limited(repeated, scale, CLIMATES["25degC"]))
        return float(np.max(used[180:] - used[:-180])) / 180.0 / NOMINAL_AH

    return bisect(lambda scale: heaviest_c(scale) - HEAVIEST_C, 0.0, 1.0)


def drive_current(cycle: str, climate: Climate, capacity_ah: float) -> np.ndarray:
    """Discharge current in A at every full second, from 10 s of rest to `USED_SHARE` of the capacity.

    The cycle repeats. As a vehicle does, it takes no charge back into a full cell (none in the first 3 % of
    the discharge, all of it after 8 %) and lowers its discharge limit below 35 % SOC, to 30 % of it at 5 %.
    """
    power = battery_power(schedule(cycle))
    once = limited(power, current_scale(power), climate)
    limit = climate.discharge_limit_c * NOMINAL_AH
    current, used = [0.0] * 10, 0.0
    while used < USED_SHARE:
        wanted = float(once[(len(current) - 10) % len(once)])
        if wanted < 0.0:
            wanted *= np.interp(used, [0.03, 0.08], [0.0, 1.0])
        else:
            wanted = min(wanted, limit * np.interp(used, [0.65, 0.95], [1.0, 0.3]))
        current.append(wanted)
        used += wanted / HOUR / capacity_ah
    return np.array(current)


# PyBaMM -----------------------------------------------------------------------------------------------------


def parameters(design: CellDesign, celsius: float) -> pybamm.ParameterValues:
    """The published parameters with the changes of one cell, fully charged (4.2 V at rest at 25 degC)."""
    values = pybamm.ParameterValues("ORegan2022")
    for at, volt in (("0%", EMPTY_VOLT), ("100%", FULL_VOLT)):
        values.update({f"Open-circuit voltage at {at} SOC [V]": volt})
    values.update(
        {
            "Electrode width [m]": values["Electrode width [m]"] * design.electrode_width,
            "Contact resistance [Ohm]": design.contact_ohm,
            "Total heat transfer coefficient [W.m-2.K-1]": COOLING_W_M2_K,
        }
    )
    for electrode in ("Negative", "Positive"):
        name = f"{electrode} electrode exchange-current density [A.m-2]"
        values.update({name: scaled(values[name], design.kinetics)})
    values.set_initial_state(1.0)
    kelvin = celsius + ZERO_CELSIUS
    values.update({"Ambient temperature [K]": kelvin, "Initial temperature [K]": kelvin})
    # The tester's limits end the steps; the model's own only guard against nonsense.
    values.update({"Lower voltage cut-off [V]": EMPTY_VOLT - 0.5, "Upper voltage cut-off [V]": FULL_VOLT + 0.15})
    return values


def scaled(function: Callable, factor: float) -> Callable:
    return lambda *arguments: factor * function(*arguments)


def simulate(model: str, design: CellDesign, celsius: float, steps: Sequence) -> list[pybamm.Solution]:
    """Solutions of the steps of a test, one each."""
    options = {"thermal": "lumped", "contact resistance": "true"}
    simulation = pybamm.Simulation(
        getattr(pybamm.lithium_ion, model)(options),
        experiment=pybamm.Experiment([tuple(steps)]),
        parameter_values=parameters(design, celsius),
        var_pts=MESH,
        solver=pybamm.IDAKLUSolver(**TOLERANCES),
    )
    done = simulation.solve().cycles[0].steps
    # A step that would be over its limit at once is skipped.
    return [step for step in done if not isinstance(step, pybamm.EmptySolution)]


# The tester -------------------------------------------------------------------------------------------------


def log(solutions: Sequence[pybamm.Solution], intervals: Callable[[float], np.ndarray], means: bool) -> np.ndarray:
    """Rows time [s], voltage, current (positive = charge), temperature, charge [Ah]; one column a sample.

    The first sample is the cell at rest, where every test begins.
    """
    blocks = [step_log(solution, intervals, means) for solution in solutions]
    for before, block in pairwise(blocks):
        block[[0, 4]] += before[[0, 4], -1:]
    voltage, temperature = (float(solutions[0][name](0.0)) for name in (VOLTAGE, TEMPERATURE))
    return np.column_stack([[0.0, voltage, 0.0, temperature, 0.0], *blocks])


def step_log(solution: pybamm.Solution, intervals: Callable[[float], np.ndarray], means: bool) -> np.ndarray:
    """What a tester writes down of one step: the values at the ends of its intervals, or their means.

    The current is a mean in either case, so that it holds over the step that ends at the sample.
    """
    origin, duration = solution.t[0], solution.t[-1] - solution.t[0]
    edges = intervals(duration)
    fine = np.union1d(np.arange(0.0, duration, FINE_SECOND), edges) if means else edges
    at = np.minimum(origin + fine, solution.t[-1])
    voltage, discharge, temperature = (solution[name](at) for name in (VOLTAGE, CURRENT, TEMPERATURE))
    ends = np.searchsorted(fine, edges)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.diff(cumulative(fine, values)[ends]) / np.diff(edges)

    shown = mean if means else lambda values: values[ends[1:]]
    charge = cumulative(fine, -discharge)[ends[1:]] / HOUR
    return np.array([edges[1:], shown(voltage), -mean(discharge), shown(temperature), charge])


def cumulative(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integral of y from the first x to every x, by trapezoids."""
    return np.concatenate([[0.0], np.cumsum(0.5 * (y[1:] + y[:-1]) * np.diff(x))])


def every(period: float) -> Callable[[float], np.ndarray]:
    """A log interval; a step that does not end on it has one shorter last interval."""
    return lambda duration: edges_to(duration, np.arange(0.0, duration, period))


def pulse_intervals(duration: float) -> np.ndarray:
    """1 s in the first minute of a step, then 10 s."""
    return edges_to(duration, np.concatenate([np.arange(60.0), np.arange(60.0, max(duration, 61.0), 10.0)]))


def edges_to(duration: float, edges: np.ndarray) -> np.ndarray:
    return np.append(edges[edges < duration - 0.05], duration)


def measured(log: np.ndarray, seed: int) -> pa.Table:
    """The log with the tester's noise and resolution; it reads no current while its relay is open."""
    random = np.random.default_rng(seed)
    columns = {"test_time_second": np.round(log[0], 2)}
    for values, (name, (resolution, noise)) in zip(log[1:], TESTER.items(), strict=True):
        error = noise * random.standard_normal(len(values))
        if name == "current_ampere":
            error[np.abs(values) < 1e-6] = 0.0
        columns[name] = np.round((values + error) / resolution) * resolution
    return pa.table({name: values.astype(np.float32) for name, values in columns.items()})


# The tests --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One file to make."""

    cell: str
    ambient: str
    test: str  # a drive cycle, "HPPC" or "C20"

    @property
    def name(self) -> str:
        return f"{self.cell}/{self.ambient}/{self.test}"

    @property
    def path(self) -> Path:
        kind = "characterisation" if self.test in ("HPPC", "C20") else "drive_1hz"
        return DEMO / kind / f"{self.name}.parquet"


def tasks() -> Iterator[Task]:
    """The slow discharges first: they give the capacity that the others need."""
    for cell in CELLS:
        yield Task(cell, "25degC", "C20")
    for cell, cycles in CYCLES.items():
        for cycle in cycles:
            for ambient in CLIMATES:
                yield Task(cell, ambient, cycle)
        for ambient in HPPC_CLIMATES[cell]:
            yield Task(cell, ambient, "HPPC")


def reference_capacity(cell: str) -> float:
    """Ah of the C/20 discharge at 25 degC, read from its file."""
    counter = pq.read_table(Task(cell, "25degC", "C20").path).column("net_capacity_ah").to_numpy()
    return round(float(-counter.min()), 4)


def drive(task: Task) -> list:
    current = drive_current(task.test, CLIMATES[task.ambient], reference_capacity(task.cell))
    profile = np.column_stack([np.arange(len(current), dtype=float), current])
    cutoff = f"< {DRIVE_CUTOFF_VOLT} V"
    return [
        pybamm.step.current(profile, duration=profile[-1, 0], termination=cutoff, period=FINE_SECOND),
        pybamm.step.rest(300.0, period=FINE_SECOND),
    ]


def slow_discharge(task: Task) -> list:
    rate = NOMINAL_AH / 20.0
    return [
        pybamm.step.rest(600.0, period=60.0),
        pybamm.step.current(rate, duration=25 * HOUR, termination=f"{EMPTY_VOLT} V", period=60.0),
        pybamm.step.rest(HOUR, period=60.0),
        pybamm.step.current(-rate, duration=25 * HOUR, termination=f"{FULL_VOLT} V", period=60.0),
        pybamm.step.rest(HOUR, period=60.0),
    ]


def pulses(task: Task) -> list:
    """Every 10 % of the capacity a 30 s discharge and a 30 s charge pulse, which the full cell is spared."""
    one_c, to_next_s = NOMINAL_AH, 0.1 * reference_capacity(task.cell) / (0.5 * NOMINAL_AH) * HOUR
    low, high = f"{EMPTY_VOLT} V", f"{FULL_VOLT} V"
    pause = pybamm.step.rest(600.0, period=1.0)
    down = [pybamm.step.current(one_c, duration=30.0, termination=low, period=1.0), pause]
    up = [pybamm.step.current(-0.5 * one_c, duration=30.0, termination=high, period=1.0), pause]
    to_next = [
        pybamm.step.current(0.5 * one_c, duration=to_next_s, termination=low, period=5.0),
        pybamm.step.rest(HOUR, period=5.0),
    ]
    return [pybamm.step.rest(60.0, period=1.0), *down, *to_next, *(9 * [*down, *up, *to_next])]


PLANS = {"C20": (slow_discharge, every(60.0), False), "HPPC": (pulses, pulse_intervals, False)}
DRIVE_PLAN = (drive, every(1.0), True)


def make(task: Task, model: str) -> None:
    """Simulate, log and write one file; nothing is left behind if it fails."""
    began = time.monotonic()
    steps, intervals, means = PLANS.get(task.test, DRIVE_PLAN)
    solutions = simulate(model, CELLS[task.cell], CLIMATES[task.ambient].celsius, steps(task))
    table = measured(log(solutions, intervals, means), seed=zlib.crc32(task.name.encode()))
    seconds = time.monotonic() - began
    about = {"model": model, "seconds": f"{seconds:.0f}", "simulator": simulator()}
    write_table(table.replace_schema_metadata(about), task.path)


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet of the least size: the steadily rising columns are split by byte, none has a dictionary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    rising = dict.fromkeys(("test_time_second", "net_capacity_ah"), "BYTE_STREAM_SPLIT")
    pq.write_table(
        table, partial, compression="zstd", compression_level=19, use_dictionary=False, column_encoding=rising
    )
    partial.replace(path)


def make_within(task: Task, limit_s: float) -> str | None:
    """Name of the model that made the file, each tried in a process of its own; None if all failed."""
    for model in ("DFN", "SPMe"):
        process = multiprocessing.get_context("fork").Process(target=make, args=(task, model))
        process.start()
        process.join(limit_s)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode == 0:
            return model
    return None


# The folder's description -----------------------------------------------------------------------------------


def simulator() -> str:
    return f"PyBaMM {pybamm.__version__}"


def write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def dataset_toml() -> str:
    warm = [ambient for ambient in CLIMATES if ambient != "n10degC"]

    def listed(*patterns: str) -> str:
        return "[" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"

    cells = "\n".join(f"[cells.{cell}]\nreference_capacity_ah = {reference_capacity(cell):.4f}\n" for cell in CELLS)
    train_warm = [f"A/{ambient}/{cycle}" for ambient in warm for cycle in ("Mixed*", "HWFET")]
    return f"""\
# Two simulated cells and their drive cycles, 1 Hz, made by scripts/make_demo.py; SOURCE.md says how.
# Columns: Battery Data Format machine names, current positive = charge.
[cell]                            # of every cell, unless [cells.<cell>] says otherwise
name = "demo (simulated LG M50)"
chemistry = "NMC811/graphite-SiOx"
nominal_capacity_ah = {NOMINAL_AH}
reference_capacity_ah = {reference_capacity("A"):.4f}    # C/20 discharge at 25 degC: the denominator of SOC
voltage_limits_volt = [{EMPTY_VOLT}, {FULL_VOLT}]

{cells}
[records]
files = "drive_1hz/*/*/*.parquet" # <cell>/<ambient>/<cycle>; n10degC = -10 degC
initial_soc = 1.0                 # net_capacity_ah counts from full charge

[identification]                  # pulse tests and slow discharges, for celltwin identify
files = "characterisation/A/*/*.parquet"

# By whole drive cycle, never by window.
# A pattern matches <cycle>, <ambient>/<cycle> or <cell>/<ambient>/<cycle>.
[split]
train = ["A/*/Mixed*", "A/*/HWFET"]
validate = ["A/*/UDDS"]
test = ["A/*/WLTC", "A/*/US06"]   # no piece of these is in a Mixed cycle

[splits.cell]                     # learn on one cell, test on another
train = ["A/*/Mixed*", "A/*/HWFET", "A/*/US06", "A/*/WLTC"]
validate = ["A/*/UDDS"]
test = ["B/*/*"]

[splits.temperature]              # -10 degC is never seen
train = {listed(*train_warm)}
validate = {listed(*(f"A/{ambient}/UDDS" for ambient in warm))}
test = ["A/n10degC/*"]

[source]
licence = "MIT"
citation = "Simulated for celltwin with {simulator()}; parameters: O'Regan et al. (2022), {PARAMETERS_DOI}"
"""


def source_md() -> str:
    fastsim = importlib.metadata.version("fastsim")
    designs = "\n".join(
        f"| {cell} | {design.electrode_width:g} | {design.kinetics:g} | {1e3 * design.contact_ohm:g} mOhm "
        f"| {reference_capacity(cell):.4f} Ah |"
        for cell, design in CELLS.items()
    )
    climates = "\n".join(
        f"| {c.celsius:g} degC | {100 * c.demand:g} % | {c.discharge_limit_c:g} C | {c.regen_limit_c:g} C |"
        for c in CLIMATES.values()
    )
    files = "\n".join(file_row(task) for task in tasks() if task.path.exists())
    return f"""\
# Demo data: two simulated LG M50 cells

Made by `scripts/make_demo.py`; do not edit by hand. Simulated, not measured: for trying things out and for
tests, not for claims about real cells. MIT licence, like the package.

**Simulator.** {simulator()}, Doyle-Fuller-Newman model (DFN) with a lumped thermal model, parameter set
`ORegan2022` (O'Regan et al., Electrochimica Acta 425 (2022) 140700, {PARAMETERS_DOI}),
whose kinetics, transport and heat capacity depend on temperature. Where the DFN stalled or failed, the
single-particle model with electrolyte (SPMe): the table says which. Mesh {MESH},
tolerances {TOLERANCES}. Heat transfer {COOLING_W_M2_K:g} W/m2/K instead of 10.
No ageing, no hysteresis, no self-discharge. The coarse radial mesh is part of what is simulated: a finer one
moves the voltage by some mV.

| cell | electrode width x | exchange current x | contact resistance | C/20 discharge at 25 degC |
|---|---|---|---|---|
{designs}

**Drive cycles.** Speed schedules shipped with FASTSim {fastsim}: US06, UDDS, HWFET and the low, medium and high phases
of WLTC 3b. Mixed1 to Mixed3 are random trips (fixed seeds) of HWFET, WMTC, NREL13 and two recorded days of driving:
no piece of US06, UDDS or WLTC is in them. The battery power of a {VEHICLE_KG:g} kg car is scaled for each cycle so
that its heaviest 3 min take {HEAVIEST_C:g} C at 25 degC, then reduced and clipped:

| ambient | demand | discharge limit | regeneration limit |
|---|---|---|---|
{climates}

A cycle starts fully charged at rest (4.2 V at 25 degC is SOC 1), repeats until {100 * USED_SHARE:g} % of the reference
capacity or {DRIVE_CUTOFF_VOLT:g} V, and ends with 5 min of rest. The discharge limit falls below 35 % SOC; no charge is
taken back in the first 3 % of the discharge. Logged as means over the second that ends at the sample.
HPPC: every 10 % a 30 s 1C discharge and a 30 s C/2 charge pulse with 10 min of rest after each, a C/2
discharge to the next level, 1 h of rest; every 1 s in the first minute of a step, then every 10 s. A step ends
at {EMPTY_VOLT} or {FULL_VOLT} V and is left out where it would begin beyond.
C20: discharge to {EMPTY_VOLT} V, 1 h of rest, charge to {FULL_VOLT} V, 1 h of rest; every 60 s.

**Tester.** Gaussian noise, then resolution: voltage 0.5 mV and 0.5 mV, current 2 mA and 2 mA (no noise with
the relay open), temperature 0.03 and 0.1 degC. The Ah counter integrates the true current, 0.5 mAh resolution.

| file | model | s to make | samples | voltage [V] | current [A] | temperature [degC] | ends at SOC |
|---|---|---|---|---|---|---|---|
{files}
"""


def file_row(task: Task) -> str:
    table = pq.read_table(task.path)
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    ranges = [
        f"{table[name].to_numpy().min():.{digits}f} .. {table[name].to_numpy().max():.{digits}f}"
        for name, digits in (("voltage_volt", 3), ("current_ampere", 2), ("temperature_t1_celsius", 1))
    ]
    soc = 1.0 + table["net_capacity_ah"][-1].as_py() / reference_capacity(task.cell)
    fields = [task.name, about["model"], about["seconds"], f"{table.num_rows}", *ranges, f"{soc:.3f}"]
    return f"| {' | '.join(fields)} |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="files like <cell>/<ambient>/<test>")
    parser.add_argument("--force", action="store_true", help="make files again that exist")
    parser.add_argument("--limit", type=float, default=300.0, metavar="SECONDS", help="of one simulation (%(default)g)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted = [task for task in tasks() if fnmatchcase(task.name, options.only)]
    wanted = [task for task in wanted if options.force or not task.path.exists()]
    failed = 0
    for number, task in enumerate(wanted, 1):
        began = time.monotonic()
        model = make_within(task, options.limit)
        failed += model is None
        size = f"{task.path.stat().st_size / 1e3:.0f} kB" if model else "FAILED"
        seconds = time.monotonic() - began
        print(f"[{number}/{len(wanted)}] {task.name:20} {model or '-':4} {seconds:5.0f} s {size}", flush=True)
    if all(Task(cell, "25degC", "C20").path.exists() for cell in CELLS):
        write_text(DEMO / "dataset.toml", dataset_toml())
        write_text(DEMO / "SOURCE.md", source_md())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
