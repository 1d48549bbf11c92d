/*
 * A twin as a co-simulation slave, without the names of one version of FMI: included by fmi2.c and fmi3.c.
 *
 * An instance is a plain block of memory, `memory`, so that its state can be taken, put back and written to disk as it
 * is. Every variable is a double in `values`, by value reference; twin.h says which they are.
 *
 * Inputs hold from the communication point at which they are set to the next. At the end of initialization the twin
 * wakes, and makes a step of no length, so that its outputs are there at the start time.
 */
#ifndef FMU_H
#define FMU_H

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "twin.h"

#if defined(_WIN32) || defined(__CYGWIN__)
#define EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT
#endif
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-parameter" /* FMI hands over more than this kind of slave needs */
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

/* Statuses have the same numbers in FMI 2 and 3. */
typedef enum { OK, WARNING, DISCARD, ERROR, FATAL } status;
typedef enum { INSTANTIATED, INITIALIZING, STEPPING, TERMINATED } phase;

/* All that a step may change. */
typedef struct {
    twin_state state;
    double values[VARIABLES];
    phase phase;
} memory;

typedef struct instance instance;
struct instance {
    memory now;
    char *name;
    void *environment;
    void (*logger)(void);
    int logging;
};

/* What a memory looks like outside: only the very same twin reads it back. */
typedef struct {
    char token[sizeof TOKEN];
    memory held;
} packed;

static void say(const instance *self, status level, const char *message);

static status fail(const instance *self, const char *what, const char *which)
{
    char message[256];
    (void)snprintf(message, sizeof message, "%s%s%s", what, which[0] ? ": " : "", which);
    say(self, ERROR, message);
    return ERROR;
}

static int is_input(unsigned reference) { return reference >= FIRST_INPUT && reference < FIRST_OUTPUT; }
static int is_output(unsigned reference) { return reference >= FIRST_OUTPUT && reference < FIRST_PARAMETER; }
static int is_parameter(unsigned reference) { return reference >= FIRST_PARAMETER && reference < VARIABLES; }

static void reset(instance *self)
{
    memset(&self->now, 0, sizeof self->now);
    memcpy(self->now.values, defaults, sizeof defaults);
}

static instance *create(const char *name, const char *token)
{
    instance *self = strcmp(token, TOKEN) == 0 ? calloc(1, sizeof *self) : NULL;
    if (self != NULL) {
        size_t length = strlen(name) + 1;
        self->name = malloc(length);
        if (self->name == NULL) {
            free(self);
            return NULL;
        }
        memcpy(self->name, name, length);
        reset(self);
    }
    return self;
}

static void release(instance *self)
{
    if (self != NULL) {
        free(self->name);
        free(self);
    }
}

/* One step of the twin with the inputs as they are; false where it said something that is no number. */
static int advance(memory *held, double step)
{
    twin_input input;
    twin_output output;
    read_inputs(held->values, &input);
    input.dt = (real)step;
    twin_step(&held->state, &input, &output);
    write_outputs(&output, held->values);
    for (unsigned i = FIRST_OUTPUT; i < FIRST_PARAMETER; ++i) {
        if (!isfinite(held->values[i])) { return 0; }
    }
    return 1;
}

#if !ESTIMATES
/* The voltage that the twin shows at rest: of a cell that woke with it, found by waking a few times. */
static double rest_voltage(const memory *held, twin_start start)
{
    memory trial = *held;
    start.current = 0;
    start.voltage = (real)NAN;
    trial.values[CURRENT] = 0.0;
    for (int round = 0; round < 4; ++round) {
        twin_init(&trial.state, &start);
        (void)advance(&trial, 0.0);
        start.voltage = (real)trial.values[VOLTAGE];
    }
    return trial.values[VOLTAGE];
}
#endif

/* Wakes the twin. A parameter that no cell can have means that it is not known, see its description. */
static int wake(memory *held)
{
    const double *v = held->values;
    twin_start start;
    start.current = (real)v[CURRENT];
    start.temperature = (real)(v[START_TEMPERATURE] > -273.15 ? v[START_TEMPERATURE] : v[TEMPERATURE]);
    start.soc = (real)(v[START_SOC] >= 0.0 ? v[START_SOC] : (double)NAN);
    start.capacity = (real)v[CAPACITY];
#if ESTIMATES
    start.voltage = (real)(v[START_VOLTAGE] > 0.0 ? v[START_VOLTAGE] : v[VOLTAGE]);
#else
    start.voltage = (real)(v[START_VOLTAGE] > 0.0 ? v[START_VOLTAGE] : rest_voltage(held, start));
#endif
    twin_init(&held->state, &start);
    return advance(held, 0.0);
}

static status get(instance *self, const unsigned *references, size_t count, double *values)
{
    memory trial;
    const memory *held = &self->now;
    for (size_t i = 0; i < count; ++i) {
        if (references[i] >= VARIABLES) { return fail(self, "there is no variable of this value reference", ""); }
        if (is_output(references[i]) && self->now.phase == INITIALIZING && held == &self->now) {
            trial = self->now; /* what the outputs would be if initialization ended now */
            if (!wake(&trial)) { return fail(self, "the outputs are no numbers", ""); }
            held = &trial;
        }
    }
    for (size_t i = 0; i < count; ++i) { values[i] = held->values[references[i]]; }
    return OK;
}

static status set(instance *self, const unsigned *references, size_t count, const double *values)
{
    for (size_t i = 0; i < count; ++i) {
        const unsigned reference = references[i];
        if (reference >= VARIABLES || is_output(reference) || reference < FIRST_INPUT) {
            return fail(self, "this variable cannot be set", reference < VARIABLES ? names[reference] : "unknown");
        }
        if (is_parameter(reference) && self->now.phase > INITIALIZING) {
            return fail(self, "a parameter can only be set before the end of initialization", names[reference]);
        }
        /* To an estimator NaN says that a sensor is silent; everywhere else it is a mistake. */
        if (isinf(values[i]) || (isnan(values[i]) && !(ESTIMATES && is_input(reference)))) {
            return fail(self, "expected a finite number", names[reference]);
        }
    }
    for (size_t i = 0; i < count; ++i) { self->now.values[references[i]] = values[i]; }
    return OK;
}

static status begin(instance *self, double time)
{
    if (self->now.phase != INSTANTIATED) { return fail(self, "initialization begins after instantiation or reset", ""); }
    if (!isfinite(time)) { return fail(self, "the start time is no number", ""); }
    self->now.values[TIME] = time;
    self->now.phase = INITIALIZING;
    return OK;
}

static status ready(instance *self)
{
    if (self->now.phase != INITIALIZING) { return fail(self, "there is no initialization to end", ""); }
    if (!wake(&self->now)) { return fail(self, "the outputs are no numbers", ""); }
    self->now.phase = STEPPING;
    return OK;
}

static status go(instance *self, double time, double step)
{
    if (self->now.phase != STEPPING) { return fail(self, "a step comes after initialization and before the end", ""); }
    if (!isfinite(time) || !isfinite(step) || step < 0.0) {
        return fail(self, "the length of a step must be a number of at least zero", "");
    }
    if (!advance(&self->now, step)) { return fail(self, "the outputs are no numbers", ""); }
    self->now.values[TIME] = time + step;
    return OK;
}

static status take(const instance *self, void **kept)
{
    if (*kept == NULL) { *kept = malloc(sizeof self->now); }
    if (*kept == NULL) { return fail(self, "out of memory", ""); }
    memcpy(*kept, &self->now, sizeof self->now);
    return OK;
}

static status put_back(instance *self, const void *kept)
{
    if (kept == NULL) { return fail(self, "there is no state to put back", ""); }
    memcpy(&self->now, kept, sizeof self->now);
    return OK;
}

static status pack(const instance *self, const void *kept, void *bytes, size_t size)
{
    if (kept == NULL || size < sizeof(packed)) { return fail(self, "there is too little room for the state", ""); }
    memset(bytes, 0, sizeof(packed));
    memcpy(bytes, TOKEN, sizeof TOKEN);
    memcpy((char *)bytes + offsetof(packed, held), kept, sizeof(memory));
    return OK;
}

static status unpack(const instance *self, const void *bytes, size_t size, void **kept)
{
    if (size < sizeof(packed) || memcmp(bytes, TOKEN, sizeof TOKEN) != 0) {
        return fail(self, "these bytes are no state of this twin", "");
    }
    if (*kept == NULL) { *kept = malloc(sizeof(memory)); }
    if (*kept == NULL) { return fail(self, "out of memory", ""); }
    memcpy(*kept, (const char *)bytes + offsetof(packed, held), sizeof(memory));
    return OK;
}

#endif
