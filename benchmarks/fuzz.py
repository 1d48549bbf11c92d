"""Feeds emitted C with arbitrary bits for as long as asked for: libFuzzer, with address and undefined-behaviour checks.

    python benchmarks/fuzz.py [--seconds 600] [--models thevenin,soc-fused,...] [--data demo]

Needs clang with its runtime (Debian: clang). Every model, untrained and shaken, gets an equal share of the time. A
crash, a NaN, or an answer outside the physical window ends the run with status 1, and the input that did it is kept.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import celltwin.estimators  # noqa: F401
from celltwin import models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.deploy import c
from celltwin.learning.training import trainable
from celltwin.models.bounds import MORE, SLACK, STRAYED
from celltwin.twin import Twin

HARNESS = """#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "NAME.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    NAME_start start;
    NAME_state state;
    if (size < sizeof start) { return 0; }
    memcpy(&start, data, sizeof start);
    NAME_init(&state, &start);
    for (size_t at = sizeof start; at + sizeof(NAME_input) <= size; at += sizeof(NAME_input)) {
        NAME_input input;
        NAME_output output;
        memcpy(&input, data + at, sizeof input);
        NAME_step(&state, &input, &output);
        if (!(output.FIRST >= LOWf && output.FIRST <= HIGHf)) { abort(); }
        if (!isfinite(output.SECOND) || (output.valid != 0 && output.valid != 1)) { abort(); }
    }
    return 0;
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="for all models together")
    parser.add_argument("--models", default=",".join(f.name for f in models.families()))
    parser.add_argument("--data", default="demo")
    options = parser.parse_args()
    if shutil.which("clang") is None:
        sys.exit("clang is not here: apt install clang")
    records = datasets.load(options.data).split().train[:4]
    cell, domain, draw = records[0].cell, Domain.of(records), np.random.default_rng(0)
    made: dict[str, object] = {}

    def model_of(name: str):
        if name not in made:
            family = models.family(name)
            base = model_of(family.base) if family.base else None
            free = family.create(records, domain, jax.random.key(0), base)
            free, rest = eqx.partition(free, trainable(free))
            shaken = jax.tree.map(lambda x: jnp.asarray(x + 0.05 * draw.normal(size=x.shape), x.dtype), free)
            made[name] = eqx.combine(shaken, rest)
        return made[name]

    names, failed = options.models.split(","), []
    for name in names:
        family = models.family(name)
        source = c.emit(Twin(name, model_of(name), domain, cell, {}, family.task))
        beyond = SLACK + MORE if family.task == "voltage" else STRAYED
        low, high = cell.voltage_limits_volt if family.task == "voltage" else (0.0, 1.0)
        text = HARNESS.replace("NAME", source.name).replace("LOW", f"{low - beyond - 1e-5:.7g}")
        text = text.replace("HIGH", f"{high + beyond + 1e-5:.7g}")
        text = text.replace("FIRST", source.outputs[0]).replace("SECOND", source.outputs[1])
        here = Path(tempfile.mkdtemp(prefix=f"fuzz-{source.name}-"))
        (here / f"{source.name}.h").write_text(source.header, encoding="utf-8")
        (here / f"{source.name}.c").write_text(source.source, encoding="utf-8")
        (here / "fuzz.c").write_text(text, encoding="utf-8")
        checks = "fuzzer,address,undefined,float-cast-overflow"
        command = [
            "clang",
            "-g",
            "-O0",
            f"-fsanitize={checks}",
            "-fno-sanitize-recover=all",
            "fuzz.c",
            "-o",
            "fuzz",
            "-lm",
        ]
        subprocess.run(command, cwd=here, check=True)
        share = max(1, round(options.seconds / len(names)))
        done = subprocess.run(
            ["./fuzz", f"-max_total_time={share}", "-max_len=8192", "-len_control=0", "-seed=1"],
            cwd=here,
            capture_output=True,
            text=True,
        )
        runs = re.search(r"Done (\d+) runs", done.stderr)
        print(f"{name:<24} {share} s, {runs[1] if runs else '?'} inputs of up to 8 kB: ", end="")
        print("clean" if done.returncode == 0 else f"FAILED, see {here}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-1500:])
        else:
            shutil.rmtree(here)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
