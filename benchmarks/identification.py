"""How well identification finds what is known: circuits drawn at random, simulated with noise, identified, compared."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pulses
from celltwin.learning.identification import Identification, identify

INTERVAL = 1.96  # standard errors, of a 95 % interval


def compare(known: pulses.Known, found: Identification) -> dict[str, np.ndarray]:
    """Relative errors and, in units of the standard error, deviations of each parameter at the nodes of the tables.

    Keys are parameter names, values [2, nodes * temperatures]; `ocv` holds its error in V over the states of charge
    that were visited. Pairs are compared in order of their time constants, and only where their number is right.
    """
    circuit = found.circuit
    soc, temperature = circuit.soc[:, None], circuit.temperatures[None, :]
    truth, seen = {"R0": known.r0(soc, temperature)}, {"R0": (circuit.r0, circuit.standard_error["r0"])}
    if known.base[-1] > 0.0 or circuit.transfer_resistance is not None:  # warm, only their sum can be seen
        total, variance = circuit.r0, circuit.standard_error["r0"] ** 2
        if circuit.transfer_resistance is not None:
            total = total + circuit.transfer_resistance
            variance = variance + circuit.standard_error["transfer_resistance"] ** 2
        truth = {"R0+Rct": truth["R0"] + known.transfer(soc, temperature)}
        seen = {"R0+Rct": (total, np.sqrt(variance))}
    if circuit.pairs == known.pairs:
        for i in range(known.pairs):
            truth[f"R{i + 1}"] = known.r(soc, temperature)[i]
            truth[f"tau{i + 1}"] = known.tau(soc, temperature)[i]
            seen[f"R{i + 1}"] = (circuit.r[i], circuit.standard_error["r"][i])
            seen[f"tau{i + 1}"] = (circuit.tau[i], circuit.standard_error["tau"][i])
    result = {}
    for name, (value, error) in seen.items():
        difference = value - truth[name]
        result[name] = np.stack([difference / truth[name], difference / error]).reshape(2, -1)
    inside = (circuit.ocv_soc >= circuit.soc[0]) & (circuit.ocv_soc <= circuit.soc[-1])
    at = circuit.ocv_soc[inside, None]
    ocv = circuit.ocv[inside] - known.ocv(at, temperature)
    result["ocv"] = np.stack([ocv, ocv / circuit.standard_error["ocv"][inside]]).reshape(2, -1)
    return result


def logs(known: pulses.Known, temperatures: Sequence[float], noise: float, period: float, seed: int) -> list:
    """A pulse test at each temperature and a slow discharge at the one nearest 25 degC."""
    slow = min(temperatures, key=lambda t: abs(t - 25.0))
    found = [pulses.hppc(known, t, noise=noise, period=period, seed=100 * seed + i) for i, t in enumerate(temperatures)]
    return [*found, pulses.slow_discharge(known, slow, noise=noise, seed=seed)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python benchmarks/identification.py --cells 20 --temperatures 25"
    )
    parser.add_argument("--cells", type=int, default=20, help="how many are drawn (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (%(default)s)")
    parser.add_argument("--pairs", type=int, default=2, choices=(1, 2, 3), help="RC pairs they have (%(default)s)")
    parser.add_argument("--transfer", action="store_true", help="with a charge transfer s asinh(R I / s)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[25.0], help="degC (%(default)s)")
    parser.add_argument("--noise", type=float, default=1.0, help="mV, standard deviation (%(default)s)")
    parser.add_argument("--period", type=float, default=0.1, help="s between samples of a pulse (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="a line for each cell")
    options = parser.parse_args()
    began, all_of, wrong = time.monotonic(), {}, []
    per_cell: dict[str, list[float]] = {}
    for seed in range(options.first, options.first + options.cells):
        known = pulses.random_cell(seed, options.pairs, options.transfer)
        records = logs(known, options.temperatures, 1e-3 * options.noise, options.period, seed)
        found = identify(records, known.cell)
        if found.circuit.pairs != known.pairs:
            wrong.append((seed, found.circuit.pairs))
        result = compare(known, found)
        for name, value in result.items():
            all_of.setdefault(name, []).append(value)
            per_cell.setdefault(name, []).append(float(np.median(np.abs(value[0]))))
        if options.verbose:
            text = "  ".join(
                f"{n} {1e3 * np.sqrt(np.mean(v[0] ** 2)):.2f} mV"
                if n == "ocv"
                else f"{n} {100 * np.median(np.abs(v[0])):.1f}/{100 * np.abs(v[0]).max():.0f}%"
                f" in {100 * np.mean(np.abs(v[1]) < INTERVAL):.0f}"
                for n, v in result.items()
            )
            kind = "" if found.circuit.transfer_scale is None else " bent"
            print(
                f"{seed:3d} {found.circuit.pairs} pairs{kind} {1e3 * found.rmse:.2f} mV {found.seconds:.0f} s  {text}"
            )
    right = options.cells - len(wrong)
    print(
        f"{options.cells} cells of {options.pairs} pairs at {', '.join(f'{t:g}' for t in options.temperatures)} degC, "
        f"{options.noise:g} mV noise, {options.period:g} s: {right} with the right number of pairs"
        + (f" (others: {', '.join(f'cell {s} {p}' for s, p in wrong)})" if wrong else "")
        + f", {time.monotonic() - began:.0f} s"
    )
    print(f"{'':8}{'median':>9}{'95 %':>9}{'worst':>9}{'worst cell':>12}{'covered':>10}")
    inside = []
    for name, values in all_of.items():
        error, deviation = np.abs(np.concatenate(values, axis=1))
        factor, unit = (1e3, "mV") if name == "ocv" else (100.0, "%")
        covered = deviation < INTERVAL
        if name != "ocv":
            inside.append(covered)
        figures = [np.median(error), np.quantile(error, 0.95), error.max()]
        print(
            f"{name:8}"
            + "".join(f"{factor * f:6.2f} {unit:2}" for f in figures)
            + f"{factor * max(per_cell[name]):9.2f} {unit:2}{100 * covered.mean():8.1f} %"
        )
    total = np.concatenate(inside)
    print(f"{'all but ocv':44}{100 * total.mean():13.1f} %")


if __name__ == "__main__":
    main()
