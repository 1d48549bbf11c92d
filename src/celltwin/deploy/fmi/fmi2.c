/* The functions of FMI 2.0 for co-simulation, see fmu.h for what they do. */
#include "fmu.h"

#ifdef FMI2_FUNCTION_PREFIX
#define FMI(name) JOIN(FMI2_FUNCTION_PREFIX, fmi2##name)
#else
#define FMI(name) fmi2##name
#endif

typedef void (*logger2)(void *, const char *, status, const char *, const char *, ...);

typedef struct {
    logger2 logger;
    void *(*allocate)(size_t, size_t);
    void (*release)(void *);
    void (*finished)(void *, status);
    void *environment;
} callbacks;

static void say(const instance *self, status level, const char *message)
{
    const logger2 logger = (logger2)self->logger;
    if (logger != NULL && (self->logging || level >= ERROR)) {
        logger(self->environment, self->name, level, "logStatusError", "%s", message);
    }
}

EXPORT const char *FMI(GetTypesPlatform)(void) { return "default"; }
EXPORT const char *FMI(GetVersion)(void) { return "2.0"; }

EXPORT void *FMI(Instantiate)(
    const char *name, int kind, const char *token, const char *resources, const callbacks *functions, int visible, int logging)
{
    instance *self = kind == 1 ? create(name, token) : NULL; /* 1: co-simulation */
    if (self != NULL && functions != NULL) {
        self->logger = (void (*)(void))functions->logger;
        self->environment = functions->environment;
        self->logging = logging;
    }
    return self;
}

EXPORT void FMI(FreeInstance)(void *c) { release(c); }

EXPORT status FMI(SetDebugLogging)(void *c, int on, size_t count, const char *const categories[])
{
    ((instance *)c)->logging = on;
    return OK;
}

EXPORT status FMI(SetupExperiment)(void *c, int limited, double tolerance, double start, int ends, double stop)
{
    instance *self = c;
    self->now.values[TIME] = start;
    return isfinite(start) ? OK : fail(self, "the start time is no number", "");
}

EXPORT status FMI(EnterInitializationMode)(void *c) { return begin(c, ((instance *)c)->now.values[TIME]); }
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

EXPORT status FMI(GetReal)(void *c, const unsigned references[], size_t count, double values[])
{
    return get(c, references, count, values);
}

EXPORT status FMI(SetReal)(void *c, const unsigned references[], size_t count, const double values[])
{
    return set(c, references, count, values);
}

EXPORT status FMI(GetBoolean)(void *c, const unsigned references[], size_t count, int values[])
{
    for (size_t i = 0; i < count; ++i) {
        double value;
        if (references[i] != VALID || get(c, &references[i], 1, &value) != OK) {
            return fail(c, "this variable is no Boolean", "");
        }
        values[i] = value != 0.0;
    }
    return OK;
}

EXPORT status FMI(SetBoolean)(void *c, const unsigned references[], size_t count, const int values[])
{
    return count ? fail(c, "no Boolean can be set", "") : OK;
}

#define ABSENT(type, value) \
    EXPORT status FMI(Get##type)(void *c, const unsigned references[], size_t count, value values[]) \
    { \
        return count ? fail(c, "there are no variables of this type", #type) : OK; \
    } \
    EXPORT status FMI(Set##type)(void *c, const unsigned references[], size_t count, const value values[]) \
    { \
        return count ? fail(c, "there are no variables of this type", #type) : OK; \
    }
ABSENT(Integer, int)
ABSENT(String, char *)

EXPORT status FMI(GetFMUstate)(void *c, void **kept) { return take(c, kept); }
EXPORT status FMI(SetFMUstate)(void *c, void *kept) { return put_back(c, kept); }

EXPORT status FMI(FreeFMUstate)(void *c, void **kept)
{
    free(*kept);
    *kept = NULL;
    return OK;
}

EXPORT status FMI(SerializedFMUstateSize)(void *c, void *kept, size_t *size)
{
    *size = sizeof(packed);
    return OK;
}

EXPORT status FMI(SerializeFMUstate)(void *c, void *kept, char bytes[], size_t size) { return pack(c, kept, bytes, size); }

EXPORT status FMI(DeSerializeFMUstate)(void *c, const char bytes[], size_t size, void **kept)
{
    return unpack(c, bytes, size, kept);
}

EXPORT status FMI(DoStep)(void *c, double time, double step, int keep)
{
    return go(c, time, step);
}

EXPORT status FMI(CancelStep)(void *c) { return fail(c, "no step is under way that could be cancelled", ""); }

EXPORT status FMI(GetDirectionalDerivative)(
    void *c, const unsigned of[], size_t many, const unsigned by[], size_t more, const double seed[], double values[])
{
    return fail(c, "derivatives are not provided", "");
}

EXPORT status FMI(SetRealInputDerivatives)(
    void *c, const unsigned references[], size_t count, const int orders[], const double values[])
{
    return fail(c, "inputs are held over a step, not interpolated", "");
}

EXPORT status FMI(GetRealOutputDerivatives)(
    void *c, const unsigned references[], size_t count, const int orders[], double values[])
{
    return fail(c, "derivatives are not provided", "");
}

EXPORT status FMI(GetStatus)(void *c, int kind, status *value)
{
    *value = OK;
    return DISCARD; /* a step is over when it returns: there is never anything pending */
}

EXPORT status FMI(GetRealStatus)(void *c, int kind, double *value)
{
    *value = ((instance *)c)->now.values[TIME];
    return kind == 2 ? OK : DISCARD; /* 2: the last time that was reached */
}

EXPORT status FMI(GetIntegerStatus)(void *c, int kind, int *value)
{
    *value = 0;
    return DISCARD;
}

EXPORT status FMI(GetBooleanStatus)(void *c, int kind, int *value)
{
    *value = ((instance *)c)->now.phase == TERMINATED;
    return kind == 3 ? OK : DISCARD; /* 3: terminated */
}

EXPORT status FMI(GetStringStatus)(void *c, int kind, const char **value)
{
    *value = "";
    return DISCARD;
}
