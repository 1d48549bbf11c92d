/*
 * A celltwin estimator as the state-of-charge module of foxBMS 2: a sketch of an adapter.
 *
 * foxBMS chooses one implementation of the functions of its state_estimation.h at build time (counting, debug, none);
 * this is another. Put it in algorithm/state_estimation/soc/celltwin beside the two files of
 *
 *     celltwin export soc-observer.twin --to c --name cell --out .
 *
 * and name the folder where the application's configuration chooses the algorithm. Every string of cells has an estimator
 * of its own, fed with the average cell voltage. Lowest and highest state of charge are the average and its standard
 * deviation: for every cell its own estimate, give each cell a state and step them all.
 *
 * What differs, and is converted here, once:
 *
 *                  foxBMS 2                                              celltwin
 *     current      mA, a string's; positive = discharge where            A, one cell's; positive = charge
 *                  BS_POSITIVE_DISCHARGE_CURRENT is true
 *     voltage      mV                                                    V
 *     temperature  ddegC, a tenth of a degree                            degC
 *     time         ms, of the current's timestamp                        s since the previous sample
 *     charge       percent                                               fraction
 *
 * Where no cell of a string has a valid measurement, the estimator is given NaN, and predicts.
 */
#include "state_estimation.h"

#include "general.h"

#include "battery_cell_cfg.h"
#include "battery_system_cfg.h"
#include "database.h"
#include "fram.h"

#include "cell.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* The current of one cell is the string's, divided among the cells in parallel. */
#define SOC_CELLS_IN_PARALLEL ((float_t)BS_NR_OF_PARALLEL_CELLS_PER_CELL_BLOCK)
#define SOC_NOMINAL_CAPACITY_Ah ((float_t)BC_CAPACITY_mAh / 1000.0f)

typedef struct {
    cell_state state;
    uint32_t timestamp_ms; /* of the sample before */
    bool awake;
} SOC_STRING_s;

static SOC_STRING_s soc_strings[BS_NR_OF_STRINGS];

static DATA_BLOCK_CURRENT_SENSOR_s soc_current = {.header.uniqueId = DATA_BLOCK_ID_CURRENT_SENSOR};
static DATA_BLOCK_MIN_MAX_s soc_minMax         = {.header.uniqueId = DATA_BLOCK_ID_MIN_MAX};

static float_t SOC_GetCurrent_A(uint8_t s) {
    const float_t current_A = (float_t)soc_current.current_mA[s] / 1000.0f / SOC_CELLS_IN_PARALLEL;
#if BS_POSITIVE_DISCHARGE_CURRENT == true
    return -current_A;
#else
    return current_A;
#endif
}

static float_t SOC_GetVoltage_V(uint8_t s) {
    const bool measured = (soc_minMax.validMeasuredCellVoltages[s] > 0u);
    return measured ? ((float_t)soc_minMax.averageCellVoltage_mV[s] / 1000.0f) : (float_t)NAN;
}

static float_t SOC_GetTemperature_degC(uint8_t s) {
    const bool measured = (soc_minMax.validMeasuredCellTemperatures[s] > 0u);
    return measured ? (soc_minMax.averageTemperature_ddegC[s] / 10.0f) : (float_t)NAN;
}

static float_t SOC_Limit_perc(float_t soc_fraction) {
    const float_t soc_perc = 100.0f * soc_fraction;
    return (soc_perc < 0.0f) ? 0.0f : ((soc_perc > 100.0f) ? 100.0f : soc_perc);
}

static void SOC_SetValues(DATA_BLOCK_SOC_s *pSocValues, uint8_t s, float_t soc, float_t deviation) {
    pSocValues->averageSoc_perc[s] = SOC_Limit_perc(soc);
    pSocValues->minimumSoc_perc[s] = SOC_Limit_perc(soc - deviation);
    pSocValues->maximumSoc_perc[s] = SOC_Limit_perc(soc + deviation);
    fram_soc.averageSoc_perc[s]    = pSocValues->averageSoc_perc[s];
    fram_soc.minimumSoc_perc[s]    = pSocValues->minimumSoc_perc[s];
    fram_soc.maximumSoc_perc[s]    = pSocValues->maximumSoc_perc[s];
}

/* Wakes the estimator with the first measurement, once there is one, and what was stored before the last shut-down. */
static void SOC_WakeUp(uint8_t s) {
    const float_t stored_perc = fram_soc.averageSoc_perc[s];
    const cell_start start    = {
           .voltage     = SOC_GetVoltage_V(s),
           .current     = SOC_GetCurrent_A(s),
           .temperature = SOC_GetTemperature_degC(s),
           .soc         = ((stored_perc > 0.0f) && (stored_perc <= 100.0f)) ? (stored_perc / 100.0f) : (float_t)NAN,
           .capacity    = SOC_NOMINAL_CAPACITY_Ah,
    };
    cell_init(&soc_strings[s].state, &start);
    soc_strings[s].timestamp_ms = soc_current.timestampCurrent[s];
    soc_strings[s].awake        = true;
}

void SE_InitializeStateOfCharge(DATA_BLOCK_SOC_s *pSocValues, bool ccPresent, uint8_t stringNumber) {
    FAS_ASSERT(pSocValues != NULL_PTR);
    FAS_ASSERT(stringNumber < BS_NR_OF_STRINGS);
    (void)ccPresent; /* the estimator counts by itself, and corrects itself by the voltage */
    FRAM_ReadData(FRAM_BLOCK_ID_SOC);
    soc_strings[stringNumber].awake = false;
    SOC_SetValues(pSocValues, stringNumber, fram_soc.averageSoc_perc[stringNumber] / 100.0f, 0.0f);
}

void SE_CalculateStateOfCharge(DATA_BLOCK_SOC_s *pSocValues) {
    FAS_ASSERT(pSocValues != NULL_PTR);
    DATA_READ_DATA(&soc_current, &soc_minMax);
    for (uint8_t s = 0u; s < BS_NR_OF_STRINGS; s++) {
        const uint32_t now_ms = soc_current.timestampCurrent[s];
        if ((soc_strings[s].awake == false) && (now_ms != 0u)) {
            SOC_WakeUp(s);
        } else if ((soc_strings[s].awake == true) && (now_ms == soc_strings[s].timestamp_ms)) {
            continue; /* nothing new was measured */
        }
        if (soc_strings[s].awake == true) {
            const cell_input input = {
                .voltage     = SOC_GetVoltage_V(s),
                .current     = SOC_GetCurrent_A(s),
                .temperature = SOC_GetTemperature_degC(s),
                .dt          = (float_t)(now_ms - soc_strings[s].timestamp_ms) / 1000.0f, /* right over the wrap too */
            };
            cell_output output;
            cell_step(&soc_strings[s].state, &input, &output);
            soc_strings[s].timestamp_ms = now_ms;
            SOC_SetValues(pSocValues, s, output.soc, output.std);
        }
    }
    FRAM_WriteData(FRAM_BLOCK_ID_SOC);
}

/* The estimate of a cell that wakes with nothing but a rested voltage. */
float_t SE_GetStateOfChargeFromVoltage(int16_t voltage_mV) {
    const cell_start start = {
        .voltage     = (float_t)voltage_mV / 1000.0f,
        .current     = 0.0f,
        .temperature = 25.0f,
        .soc         = (float_t)NAN,
        .capacity    = SOC_NOMINAL_CAPACITY_Ah,
    };
    const cell_input input = {.voltage = start.voltage, .current = 0.0f, .temperature = 25.0f, .dt = 0.0f};
    cell_state state;
    cell_output output;
    cell_init(&state, &start);
    cell_step(&state, &input, &output);
    return SOC_Limit_perc(output.soc);
}
