"""The reader of FOBSS, on files made in its form: the data set itself is the user's to download."""

import numpy as np
import pytest

from celltwin.data.fobss import load_fobss
from celltwin.errors import CelltwinError


def made(folder, sign=1.0, scale=1.0):
    """A profile of two subunits of three cells: rest, discharge, rest, charge; clocks of their own."""
    time = np.arange(0.0, 400.0, 0.5) + 1e5
    current = sign * np.select([time - 1e5 < 50, time - 1e5 < 200, time - 1e5 < 250], [0.0, -20.0, 0.0], 15.0)
    for name in ("inverter", "cells"):
        (folder / name).mkdir(parents=True)
    np.savetxt(folder / "inverter" / "Inverter_Current.csv", np.stack([time, current], axis=1), delimiter=";")
    slow = np.arange(0.0, 390.0, 2.0) + 1e5 + 0.7
    charge = np.interp(slow, time, np.cumsum(sign * current) * 0.5 / 3600.0)
    drop = 0.005 * np.interp(slow, time, sign * current)
    for slave in range(2):
        cells = 3.7 + 0.02 * np.arange(3) + 0.1 * slave + (charge + drop)[:, None]
        table = np.column_stack([slow, scale * cells])
        np.savetxt(folder / "cells" / f"Slave_{slave}_Cell_Voltages.csv", table, delimiter=";")
        warm = np.column_stack([slow[::10], 20.0 + slave + 0 * slow[::10]])
        np.savetxt(folder / "cells" / f"Slave_{slave}_Cell_Temperatures.csv", warm, delimiter=";")
    return folder


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_profile_is_a_string(tmp_path, scale):
    record = load_fobss(made(tmp_path / "profile_1", scale=scale))
    assert record.group_voltage.shape == (195, 6)
    assert record.group_voltage[0, 3] == pytest.approx(3.8, abs=1e-3)
    assert record.sensor_temperature.shape == (195, 2)
    assert record.time[0] == 0.0
    assert record.current.min() == pytest.approx(-20.0)
    expected = (-20.0 * 150.0 + 15.0 * 138.7) / 3600.0
    assert record.charge_ah[-1] == pytest.approx(expected, abs=5e-3)


def test_what_is_no_profile_is_refused(tmp_path):
    with pytest.raises(CelltwinError, match="no profile"):
        load_fobss(tmp_path)
    folder = made(tmp_path / "turned", sign=-1.0)
    with pytest.raises(CelltwinError, match="does not charge"):
        load_fobss(folder)
    (folder / "inverter" / "Inverter_Current.csv").write_text("time,current\n1,2\n")
    with pytest.raises(CelltwinError, match="no table"):
        load_fobss(folder)
