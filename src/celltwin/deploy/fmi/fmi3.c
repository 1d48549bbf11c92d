/* The functions of FMI 3.0 for co-simulation, see fmu.h for what they do. */
#include <stdbool.h>
#include <stdint.h>

#include "fmu.h"

#ifdef FMI3_FUNCTION_PREFIX
#define FMI(name) JOIN(FMI3_FUNCTION_PREFIX, fmi3##name)
#else
#define FMI(name) fmi3##name
#endif

typedef void (*logger3)(void *, status, const char *, const char *);

static void say(const instance *self, status level, const char *message)
{
    const logger3 logger = (logger3)self->logger;
    if (logger != NULL && (self->logging || level >= ERROR)) {
        logger(self->environment, level, "logStatusError", message);
    }
}

EXPORT const char *FMI(GetVersion)(void) { return "3.0"; }

EXPORT void *FMI(InstantiateCoSimulation)(
    const char *name, const char *token, const char *resources, bool visible, bool logging, bool events, bool early,
    const uint32_t required[], size_t count, void *environment, logger3 logger, void (*update)(void))
{
    instance *self = create(name, token);
    if (self != NULL) {
        self->logger = (void (*)(void))logger;
        self->environment = environment;
        self->logging = logging;
    }
    return self;
}

EXPORT void *FMI(InstantiateModelExchange)(
    const char *name, const char *token, const char *resources, bool visible, bool logging, void *environment, logger3 logger)
{
    return NULL;
}

EXPORT void *FMI(InstantiateScheduledExecution)(
    const char *name, const char *token, const char *resources, bool visible, bool logging, void *environment, logger3 logger,
    void (*update)(void), void (*lock)(void), void (*unlock)(void))
{
    return NULL;
}

EXPORT void FMI(FreeInstance)(void *c) { release(c); }

EXPORT status FMI(SetDebugLogging)(void *c, bool on, size_t count, const char *const categories[])
{
    ((instance *)c)->logging = on;
    return OK;
}

EXPORT status FMI(EnterInitializationMode)(void *c, bool limited, double tolerance, double start, bool ends, double stop)
{
    return begin(c, start);
}

EXPORT status FMI(ExitInitializationMode)(void *c) { return ready(c); }

EXPORT status FMI(Terminate)(void *c)
{
    ((instance *)c)->now.phase = TERMINATED;
    return OK;
}

EXPORT status FMI(Reset)(void *c)
{
    reset(c);
    return OK;
}

EXPORT status FMI(GetFloat64)(void *c, const uint32_t references[], size_t count, double values[], size_t many)
{
    return many == count ? get(c, references, count, values) : fail(c, "every variable is one number", "");
}

EXPORT status FMI(SetFloat64)(void *c, const uint32_t references[], size_t count, const double values[], size_t many)
{
    return many == count ? set(c, references, count, values) : fail(c, "every variable is one number", "");
}

EXPORT status FMI(GetBoolean)(void *c, const uint32_t references[], size_t count, bool values[], size_t many)
{
    for (size_t i = 0; i < count; ++i) {
        double value;
        if (many != count || references[i] != VALID || get(c, &references[i], 1, &value) != OK) {
            return fail(c, "this variable is no Boolean", "");
        }
        values[i] = value != 0.0;
    }
    return OK;
}

EXPORT status FMI(SetBoolean)(void *c, const uint32_t references[], size_t count, const bool values[], size_t many)
{
    return count ? fail(c, "no Boolean can be set", "") : OK;
}

#define ABSENT(type, value) \
    EXPORT status FMI(Get##type)(void *c, const uint32_t references[], size_t count, value values[], size_t many) \
    { \
        return count ? fail(c, "there are no variables of this type", #type) : OK; \
    } \
    EXPORT status FMI(Set##type)(void *c, const uint32_t references[], size_t count, const value values[], size_t many) \
    { \
        return count ? fail(c, "there are no variables of this type", #type) : OK; \
    }
ABSENT(Float32, float)
ABSENT(Int8, int8_t)
ABSENT(UInt8, uint8_t)
ABSENT(Int16, int16_t)
ABSENT(UInt16, uint16_t)
ABSENT(Int32, int32_t)
ABSENT(UInt32, uint32_t)
ABSENT(Int64, int64_t)
ABSENT(UInt64, uint64_t)
ABSENT(String, char *)

EXPORT status FMI(GetBinary)(
    void *c, const uint32_t references[], size_t count, size_t sizes[], const uint8_t *values[], size_t many)
{
    return count ? fail(c, "there are no variables of this type", "Binary") : OK;
}

EXPORT status FMI(SetBinary)(
    void *c, const uint32_t references[], size_t count, const size_t sizes[], const uint8_t *const values[], size_t many)
{
    return count ? fail(c, "there are no variables of this type", "Binary") : OK;
}

EXPORT status FMI(GetClock)(void *c, const uint32_t references[], size_t count, bool values[])
{
    return count ? fail(c, "there are no clocks", "") : OK;
}

EXPORT status FMI(SetClock)(void *c, const uint32_t references[], size_t count, const bool values[])
{
    return count ? fail(c, "there are no clocks", "") : OK;
}

EXPORT status FMI(GetFMUState)(void *c, void **kept) { return take(c, kept); }
EXPORT status FMI(SetFMUState)(void *c, void *kept) { return put_back(c, kept); }

EXPORT status FMI(FreeFMUState)(void *c, void **kept)
{
    free(*kept);
    *kept = NULL;
    return OK;
}

EXPORT status FMI(SerializedFMUStateSize)(void *c, void *kept, size_t *size)
{
    *size = sizeof(packed);
    return OK;
}

EXPORT status FMI(SerializeFMUState)(void *c, void *kept, uint8_t bytes[], size_t size)
{
    return pack(c, kept, bytes, size);
}

EXPORT status FMI(DeserializeFMUState)(void *c, const uint8_t bytes[], size_t size, void **kept)
{
    return unpack(c, bytes, size, kept);
}

EXPORT status FMI(DoStep)(
    void *c, double time, double step, bool keep, bool *event, bool *terminate, bool *early, double *reached)
{
    const status done = go(c, time, step);
    *event = false;
    *terminate = false;
    *early = false;
    *reached = ((instance *)c)->now.values[TIME];
    return done;
}

/* What belongs to events, clocks, derivatives and other kinds of FMU: exported, for importers look for it, and refused. */

#define REFUSED(name, ...) \
    EXPORT status FMI(name)(void *c, __VA_ARGS__) { return fail(c, "a co-simulation of steps alone has none of this", #name); }
#define REFUSED_WITHOUT(name) \
    EXPORT status FMI(name)(void *c) { return fail(c, "a co-simulation of steps alone has none of this", #name); }

REFUSED_WITHOUT(EnterEventMode)
REFUSED_WITHOUT(EnterStepMode)
REFUSED_WITHOUT(EnterContinuousTimeMode)
REFUSED_WITHOUT(EnterConfigurationMode)
REFUSED_WITHOUT(ExitConfigurationMode)
REFUSED_WITHOUT(EvaluateDiscreteStates)
REFUSED(UpdateDiscreteStates, bool *update, bool *terminate, bool *nominals, bool *values, bool *defined, double *next)
REFUSED(GetOutputDerivatives, const uint32_t of[], size_t count, const int32_t orders[], double values[], size_t many)
REFUSED(
    GetDirectionalDerivative, const uint32_t of[], size_t many, const uint32_t by[], size_t more, const double seed[],
    size_t seeds, double values[], size_t count)
REFUSED(
    GetAdjointDerivative, const uint32_t of[], size_t many, const uint32_t by[], size_t more, const double seed[],
    size_t seeds, double values[], size_t count)
REFUSED(GetNumberOfVariableDependencies, uint32_t reference, size_t *count)
REFUSED(
    GetVariableDependencies, uint32_t reference, size_t elements[], uint32_t on[], size_t others[], int kinds[],
    size_t count)
REFUSED(GetIntervalDecimal, const uint32_t of[], size_t count, double intervals[], int qualifiers[])
REFUSED(
    GetIntervalFraction, const uint32_t of[], size_t count, uint64_t counters[], uint64_t resolutions[], int qualifiers[])
REFUSED(GetShiftDecimal, const uint32_t of[], size_t count, double shifts[])
REFUSED(GetShiftFraction, const uint32_t of[], size_t count, uint64_t counters[], uint64_t resolutions[])
REFUSED(SetIntervalDecimal, const uint32_t of[], size_t count, const double intervals[])
REFUSED(SetIntervalFraction, const uint32_t of[], size_t count, const uint64_t counters[], const uint64_t resolutions[])
REFUSED(SetShiftDecimal, const uint32_t of[], size_t count, const double shifts[])
REFUSED(SetShiftFraction, const uint32_t of[], size_t count, const uint64_t counters[], const uint64_t resolutions[])
REFUSED(ActivateModelPartition, uint32_t clock, double time)
REFUSED(CompletedIntegratorStep, bool keep, bool *event, bool *terminate)
REFUSED(SetTime, double time)
REFUSED(SetContinuousStates, const double states[], size_t count)
REFUSED(GetContinuousStates, double states[], size_t count)
REFUSED(GetContinuousStateDerivatives, double derivatives[], size_t count)
REFUSED(GetNominalsOfContinuousStates, double nominals[], size_t count)
REFUSED(GetEventIndicators, double indicators[], size_t count)
REFUSED(GetNumberOfEventIndicators, size_t *count)
REFUSED(GetNumberOfContinuousStates, size_t *count)
