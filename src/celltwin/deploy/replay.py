"""The `main.c` that comes with an emitted twin, and its Makefile: a csv in, a csv out."""

from __future__ import annotations

MAKEFILE = """# make && ./NAME < log.csv > out.csv
CC ?= cc
CFLAGS ?= -O3 -fno-trapping-math -std=c99 -Wall -Wextra -Wconversion -pedantic

NAME: main.c NAME.c NAME.h
\t$(CC) $(CFLAGS) -o $@ main.c NAME.c -lm

clean:
\trm -f NAME

.PHONY: clean
"""

COLUMNS = {
    "voltage": "voltage_volt",
    "current": "current_ampere",
    "temperature": "temperature_t1_celsius",
}

MAIN = """/*
 * Replays a log: csv on standard input, what the twin says on standard output.
 *
 *     ./NAME USAGE < log.csv > out.csv
 *
 * The log begins with a line of names and holds test_time_second, voltage_volt (the first sample's at least),
 * current_ampere (positive = charge) and temperature_t1_celsius; an empty field is a value that was not measured.
 * SOC is the fraction at the first sample: a simulation needs it, an estimate does not. CAPACITY in Ah, default
 * the cell's reference capacity.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "NAME.h"

enum { TIME, VOLTAGE, CURRENT, TEMPERATURE, COUNT };
static const char *const names[COUNT] = {
    "test_time_second", "voltage_volt", "current_ampere", "temperature_t1_celsius"};

/* Cuts the next field off a line; NULL after the last. */
static char *next_field(char **rest)
{
    char *field = *rest;
    if (field != NULL) {
        char *end = strchr(field, ',');
        *rest = end == NULL ? NULL : end + 1;
        field += *field == '"';
        field[strcspn(field, "\\",\\r\\n")] = '\\0';
    }
    return field;
}

int main(int argc, char **argv)
{
    static char line[65536];
    int place[COUNT] = {-1, -1, -1, -1};
    char *rest = line;
    char *field;
    NAME_state state;
    double before = 0.0;
    long number = 0;

NEEDED    if (fgets(line, (int)sizeof line, stdin) == NULL) {
        fputs("empty log: expected a line of names\\n", stderr);
        return 2;
    }
    for (int column = 0; (field = next_field(&rest)) != NULL; ++column) {
        for (int i = 0; i < COUNT; ++i) {
            if (strcmp(field, names[i]) == 0) { place[i] = column; }
        }
    }
    for (int i = 0; i < COUNT; ++i) {
        if (place[i] < 0) {
            fprintf(stderr, "the log has no column %s\\n", names[i]);
            return 2;
        }
    }
    puts("OUTPUTS");
    while (fgets(line, (int)sizeof line, stdin) != NULL) {
        double values[COUNT] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
        NAME_input input;
        NAME_output output;
        rest = line;
        for (int column = 0; (field = next_field(&rest)) != NULL; ++column) {
            for (int i = 0; i < COUNT; ++i) {
                if (place[i] == column && field[0] != '\\0') { values[i] = strtod(field, NULL); }
            }
        }
        if (!(number == 0 ? isfinite(values[TIME]) : values[TIME] > before)) {
            fprintf(stderr, "row %ld: time does not increase\\n", number + 1);
            return 2;
        }
        if (number == 0) {
            NAME_start start;
            start.voltage = (REAL)values[VOLTAGE];
            start.current = (REAL)values[CURRENT];
            start.temperature = (REAL)values[TEMPERATURE];
            start.soc = (REAL)(argc > 1 ? strtod(argv[1], NULL) : (double)NAN);
            start.capacity = (REAL)(argc > 2 ? strtod(argv[2], NULL) : CAPACITY);
            NAME_init(&state, &start);
            before = values[TIME];
        }
INPUTS
        input.dt = (REAL)(values[TIME] - before);
        before = values[TIME];
        NAME_step(&state, &input, &output);
        printf("FORMAT\\n", values[TIME], VALUES, output.valid);
        ++number;
    }
    return 0;
}
"""


NEEDED = """    if (argc < 2) {
        fputs("usage: ./NAME USAGE < log.csv; SOC is the fraction at the first sample\\n", stderr);
        return 2;
    }
"""


def replay(name: str, real: str, inputs: tuple[str, ...], outputs: tuple[str, ...], capacity: float) -> str:
    """The text of main.c."""
    set_ = [f"        input.{n} = ({real})values[{n.upper()}];" for n in inputs if n in COLUMNS]
    said = [n for n in outputs if n != "valid"]
    digits = "%.9g" if real == "float" else "%.17g"
    simulates = "voltage" not in inputs
    text = MAIN.replace("NEEDED", NEEDED if simulates else "")
    text = text.replace("USAGE", "SOC [CAPACITY]" if simulates else "[SOC [CAPACITY]]")
    text = text.replace("INPUTS", "\n".join(set_)).replace("OUTPUTS", ",".join(["test_time_second", *said, "valid"]))
    text = text.replace("FORMAT", ",".join(["%.9g", *[digits] * len(said), "%d"]))
    text = text.replace("VALUES", ", ".join(f"(double)output.{n}" for n in said))
    return text.replace("CAPACITY)", f"{capacity!r})").replace("REAL", real).replace("NAME", name)
