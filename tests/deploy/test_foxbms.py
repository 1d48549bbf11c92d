"""The adapter for foxBMS 2: against headers that declare what it uses, it compiles, and converts signs and units."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from celltwin.deploy import c
from celltwin.deploy.native import Native
from celltwin.interface import Start

ADAPTER = Path(__file__).parents[2] / "examples" / "foxbms" / "soc_celltwin.c"

# Declarations of ours, of what the adapter uses of the BMS; blocks of its database are plain variables.
STUBS = {
    "state_estimation.h": """
#include "database.h"
void SE_InitializeStateOfCharge(DATA_BLOCK_SOC_s *pSocValues, bool ccPresent, uint8_t stringNumber);
void SE_CalculateStateOfCharge(DATA_BLOCK_SOC_s *pSocValues);
float_t SE_GetStateOfChargeFromVoltage(int16_t voltage_mV);
""",
    "general.h": """
#include <assert.h>
#define FAS_ASSERT(x) assert(x)
#define NULL_PTR ((void *)0)
""",
    "battery_cell_cfg.h": "#define BC_CAPACITY_mAh (1000u)\n",
    "battery_system_cfg.h": """
#define BS_NR_OF_STRINGS (2u)
#define BS_NR_OF_PARALLEL_CELLS_PER_CELL_BLOCK (2u)
#ifndef BS_POSITIVE_DISCHARGE_CURRENT
#define BS_POSITIVE_DISCHARGE_CURRENT (true)
#endif
""",
    "database.h": """
#ifndef DATABASE_H
#define DATABASE_H
#include "battery_system_cfg.h"
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
typedef enum { DATA_BLOCK_ID_CURRENT_SENSOR, DATA_BLOCK_ID_MIN_MAX } DATA_BLOCK_ID_e;
typedef struct { DATA_BLOCK_ID_e uniqueId; } DATA_BLOCK_HEADER_s;
typedef struct {
    DATA_BLOCK_HEADER_s header;
    int32_t current_mA[BS_NR_OF_STRINGS];
    uint32_t timestampCurrent[BS_NR_OF_STRINGS];
} DATA_BLOCK_CURRENT_SENSOR_s;
typedef struct {
    DATA_BLOCK_HEADER_s header;
    int16_t averageCellVoltage_mV[BS_NR_OF_STRINGS];
    uint16_t validMeasuredCellVoltages[BS_NR_OF_STRINGS];
    float_t averageTemperature_ddegC[BS_NR_OF_STRINGS];
    uint16_t validMeasuredCellTemperatures[BS_NR_OF_STRINGS];
} DATA_BLOCK_MIN_MAX_s;
typedef struct {
    float_t averageSoc_perc[BS_NR_OF_STRINGS];
    float_t minimumSoc_perc[BS_NR_OF_STRINGS];
    float_t maximumSoc_perc[BS_NR_OF_STRINGS];
} DATA_BLOCK_SOC_s;
void read_blocks(void *first, void *second);
#define DATA_READ_DATA(first, second) read_blocks(first, second)
#endif
""",
    "fram.h": """
#include "database.h"
enum { FRAM_BLOCK_ID_SOC };
extern DATA_BLOCK_SOC_s fram_soc;
#define FRAM_ReadData(id) ((void)(id))
#define FRAM_WriteData(id) ((void)(id))
""",
}

# Reads lines of what the BMS measured, in its units, and prints the state of charge of both strings.
MAIN = """
#include "state_estimation.h"
#include "fram.h"
#include <stdio.h>

DATA_BLOCK_SOC_s fram_soc;
static DATA_BLOCK_CURRENT_SENSOR_s current;
static DATA_BLOCK_MIN_MAX_s cells;

void read_blocks(void *first, void *second)
{
    *(DATA_BLOCK_CURRENT_SENSOR_s *)first = current;
    *(DATA_BLOCK_MIN_MAX_s *)second = cells;
}

int main(void)
{
    DATA_BLOCK_SOC_s soc;
    long time_ms, current_mA, voltage_mV, temperature_ddegC;
    fram_soc.averageSoc_perc[0] = 63.0f;
    for (uint8_t s = 0; s < BS_NR_OF_STRINGS; ++s) { SE_InitializeStateOfCharge(&soc, false, s); }
    while (scanf("%ld,%ld,%ld,%ld", &time_ms, &current_mA, &voltage_mV, &temperature_ddegC) == 4) {
        for (uint8_t s = 0; s < BS_NR_OF_STRINGS; ++s) {
            current.current_mA[s] = (int32_t)current_mA;
            current.timestampCurrent[s] = (uint32_t)time_ms;
            cells.averageCellVoltage_mV[s] = (int16_t)voltage_mV;
            cells.averageTemperature_ddegC[s] = (float_t)temperature_ddegC;
            cells.validMeasuredCellVoltages[s] = voltage_mV > 0;
            cells.validMeasuredCellTemperatures[s] = 1;
        }
        SE_CalculateStateOfCharge(&soc);
        printf("%.6f,%.6f\\n", (double)soc.averageSoc_perc[0], (double)soc.averageSoc_perc[1]);
    }
    printf("%.6f,%.6f\\n", (double)SE_GetStateOfChargeFromVoltage(3300), (double)SE_GetStateOfChargeFromVoltage(4100));
    return 0;
}
"""


@pytest.mark.parametrize("discharge", [1, -1])
def test_foxbms_units_and_sign_become_those_of_the_twin(discharge, twin_of, compiler, tmp_path):
    twin = twin_of("soc-ocv")
    c.export(twin, tmp_path, name="cell")
    for file, text in (STUBS | {"main.c": MAIN, "soc_celltwin.c": ADAPTER.read_text(encoding="utf-8")}).items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    sign = f"-DBS_POSITIVE_DISCHARGE_CURRENT={'true' if discharge > 0 else 'false'}"
    units = [str(tmp_path / file) for file in ("main.c", "soc_celltwin.c", "cell.c")]
    done = subprocess.run(
        [*compiler, *flags, sign, "-o", str(tmp_path / "bms"), *units, "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[:800]

    count, draw = 50, np.random.default_rng(0)
    milliseconds = 1000 * np.arange(1, count + 1)
    charging, voltage = draw.integers(-2000, 1500, count), draw.integers(3400, 4000, count)  # mA of a string, mV
    voltage[7] = 0
    lines = zip(milliseconds, -discharge * charging, voltage, np.full(count, 253), strict=True)
    text = "\n".join(",".join(map(str, row)) for row in lines)
    said = subprocess.run(
        [str(tmp_path / "bms")], input=text, capture_output=True, text=True, check=True
    ).stdout.split()
    first, second = np.array([row.split(",") for row in said], float).T

    ours = Native(c.emit(twin))
    for column, stored in ((first, 0.63), (second, np.nan)):
        state = ours.begin(Start(voltage[0] / 1e3, charging[0] / 2e3, 25.3, stored, 1.0))  # pyright: ignore
        for k in range(count):
            measured = voltage[k] / 1e3 if voltage[k] else np.nan
            soc = ours.step(state, measured, charging[k] / 2e3, 25.3, 1.0 if k else 0.0)[0]
            assert column[k] == pytest.approx(100 * min(max(soc, 0), 1), abs=1e-3)
    assert np.ptp(first[:count]) > 1
    assert first[count] < second[count]  # 3.3 V and 4.1 V at rest
