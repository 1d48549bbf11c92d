"""A cell as an FMU, coupled with a load that draws constant power until the cell is empty.

    celltwin export cell.twin --to fmu --out build
    python examples/fmu_load.py build/cell.fmu --power 8

The load is what any co-simulation partner is: it sees the voltage at a communication point and answers with the current
of the next step. Power is current times voltage, and the voltage depends on the current; so each step is done, looked
at, taken back and done again with a better current, until the two agree. Saving and restoring the slave's state makes
that possible. Needs `pip install celltwin[fmu]`.
"""

from __future__ import annotations

import argparse
import shutil

import fmpy
from fmpy.fmi2 import FMU2Slave

CLOSE = 1e-4  # of the power that is asked for


def discharge(
    path: str, power: float, cutoff: float, step: float = 1.0, hours: float = 24.0
) -> list[tuple[float, ...]]:
    """Time (s), voltage (V), current (A, negative: out of the cell) and state of charge, a row a step."""
    about = fmpy.read_model_description(path)
    reference = {v.name: [v.valueReference] for v in about.modelVariables}
    folder = fmpy.extract(path)
    cell = FMU2Slave(
        guid=about.guid,
        unzipDirectory=folder,
        modelIdentifier=about.coSimulation.modelIdentifier,
        instanceName="cell",
    )
    cell.instantiate()

    def read(name: str) -> float:
        return cell.getReal(reference[name])[0]

    cell.setupExperiment(startTime=0.0)
    cell.enterInitializationMode()
    cell.setReal(reference["start_soc"], [1.0])
    cell.exitInitializationMode()
    time, voltage, rows = 0.0, read("voltage"), []
    while time < 3600 * hours:
        before = cell.getFMUstate()
        for _ in range(20):
            current = -power / voltage
            cell.setReal(reference["current"], [current])
            cell.doStep(currentCommunicationPoint=time, communicationStepSize=step)
            voltage = read("voltage")
            if abs(-current * voltage - power) < CLOSE * power:
                break
            cell.setFMUstate(before)
        else:
            raise SystemExit(f"after {time:.0f} s the cell cannot give {power:g} W any more")
        cell.freeFMUstate(before)
        time += step
        rows.append((time, voltage, current, read("soc")))
        if voltage < cutoff:
            break
    cell.terminate()
    cell.freeInstance()
    shutil.rmtree(folder, ignore_errors=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fmu", help="an FMU 2.0 of a voltage model")
    parser.add_argument("--power", type=float, default=5.0, help="W")
    parser.add_argument("--cutoff", type=float, default=3.0, help="V, where the load lets go")
    given = parser.parse_args()
    rows = discharge(given.fmu, given.power, given.cutoff)
    print("time_s,voltage_V,current_A,soc")
    for row in rows[:: max(1, len(rows) // 20)]:
        print(",".join(f"{value:.4g}" for value in row))
    time, voltage, _, soc = rows[-1]
    print(f"{given.power:g} W for {time / 60:.1f} min down to {voltage:.3f} V and {100 * soc:.1f} % of charge")


if __name__ == "__main__":
    main()
