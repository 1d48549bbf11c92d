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
    (void)resources;
    (void)visible;
    (void)events;
    (void)early;
    (void)required;
    (void)count;
    (void)update;
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
    (void)name;
    (void)token;
    (void)resources;
    (void)visible;
    (void)logging;
    (void)environment;
    (void)logger;
    return NULL;
}

EXPORT void *FMI(InstantiateScheduledExecution)(
    const char *name, const char *token, const char *resources, bool visible, bool logging, void *environment, logger3 logger,
    void (*update)(void), void (*lock)(void), void (*unlock)(void))
{
    (void)name;
    (void)token;
    (void)resources;
    (void)visible;
    (void)logging;
    (void)environment;
    (void)logger;
    (void)update;
    (void)lock;
    (void)unlock;
    return NULL;
}

EXPORT void FMI(FreeInstance)(void *c) { release(c); }

EXPORT status FMI(SetDebugLogging)(void *c, bool on, size_t count, const char *const categories[])
{
    (void)count;
    (void)categories;
    ((instance *)c)->logging = on;
    return OK;
}

EXPORT status FMI(EnterInitializationMode)(void *c, bool limited, double tolerance, double start, bool ends, double stop)
{
    (void)limited;
    (void)tolerance;
    (void)ends;
    (void)stop;
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
    (void)references;
    (void)values;
    (void)many;
    return count ? fail(c, "no Boolean can be set", "") : OK;
}

#define ABSENT(type, value) \
    EXPORT status FMI(Get##type)(void *c, const uint32_t references[], size_t count, value values[], size_t many) \
    { \
        (void)references; \
        (void)values; \
        (void)many; \
        return count ? fail(c, "there are no variables of this type", #type) : OK; \
    } \
    EXPORT status FMI(Set##type)(void *c, const uint32_t references[], size_t count, const value values[], size_t many) \
    { \
        (void)references; \
        (void)values; \
        (void)many; \
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
    (void)references;
    (void)sizes;
    (void)values;
    (void)many;
    return count ? fail(c, "there are no variables of this type", "Binary") : OK;
}

EXPORT status FMI(SetBinary)(
    void *c, const uint32_t references[], size_t count, const size_t sizes[], const uint8_t *const values[], size_t many)
{
    (void)references;
    (void)sizes;
    (void)values;
    (void)many;
    return count ? fail(c, "there are no variables of this type", "Binary") : OK;
}

EXPORT status FMI(GetClock)(void *c, const uint32_t references[], size_t count, bool values[])
{
    (void)references;
    (void)values;
    return count ? fail(c, "there are no clocks", "") : OK;
}

EXPORT status FMI(SetClock)(void *c, const uint32_t references[], size_t count, const bool values[])
{
    (void)references;
    (void)values;
    return count ? fail(c, "there are no clocks", "") : OK;
}

EXPORT status FMI(GetFMUState)(void *c, void **kept) { return take(c, kept); }
EXPORT status FMI(SetFMUState)(void *c, void *kept) { return put_back(c, kept); }

EXPORT status FMI(FreeFMUState)(void *c, void **kept)
{
    (void)c;
    free(*kept);
    *kept = NULL;
    return OK;
}

EXPORT status FMI(SerializedFMUStateSize)(void *c, void *kept, size_t *size)
{
    (void)c;
    (void)kept;
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
    (void)keep;
    *event = false;
    *terminate = false;
    *early = false;
    *reached = ((instance *)c)->now.values[TIME];
    return done;
}

#define NEVER(name) \
    EXPORT status FMI(name)(void *c) { return fail(c, "there are no events, and nothing to configure", #name); }
NEVER(EnterEventMode)
NEVER(EnterStepMode)
NEVER(EnterConfigurationMode)
NEVER(ExitConfigurationMode)
NEVER(EvaluateDiscreteStates)

EXPORT status FMI(UpdateDiscreteStates)(
    void *c, bool *update, bool *terminate, bool *nominals, bool *values, bool *defined, double *next)
{
    *update = *terminate = *nominals = *values = *defined = false;
    *next = 0.0;
    return fail(c, "there are no events", "");
}

EXPORT status FMI(GetOutputDerivatives)(
    void *c, const uint32_t references[], size_t count, const int32_t orders[], double values[], size_t many)
{
    (void)references;
    (void)count;
    (void)orders;
    (void)values;
    (void)many;
    return fail(c, "derivatives are not provided", "");
}

#define DERIVATIVE(name) \
    EXPORT status FMI(name)( \
        void *c, const uint32_t of[], size_t many, const uint32_t by[], size_t more, const double seed[], size_t seeds, \
        double values[], size_t count) \
    { \
        (void)of; \
        (void)many; \
        (void)by; \
        (void)more; \
        (void)seed; \
        (void)seeds; \
        (void)values; \
        (void)count; \
        return fail(c, "derivatives are not provided", ""); \
    }
DERIVATIVE(GetDirectionalDerivative)
DERIVATIVE(GetAdjointDerivative)

EXPORT status FMI(GetNumberOfVariableDependencies)(void *c, uint32_t reference, size_t *count)
{
    (void)reference;
    *count = 0;
    return fail(c, "dependencies are those of the model description", "");
}

EXPORT status FMI(GetVariableDependencies)(
    void *c, uint32_t reference, size_t elements[], uint32_t on[], size_t others[], int kinds[], size_t count)
{
    (void)reference;
    (void)elements;
    (void)on;
    (void)others;
    (void)kinds;
    (void)count;
    return fail(c, "dependencies are those of the model description", "");
}
