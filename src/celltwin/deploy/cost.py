"""What an emitted twin costs on a microcontroller: cross-compiled, and run in an emulator.

Flash is the code, the tables and what they need of the mathematical library; RAM the state and what is not constant;
stack the most that `init` or `step` left behind of a painted stack. Instructions are counted by QEMU, whose clock is
made to advance by a fixed time an instruction; the time on silicon is an estimate from that, and said to be one.

Needs arm-none-eabi-gcc with newlib and qemu-system-arm (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi,
qemu-system-arm).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from celltwin.deploy.c import Source
from celltwin.errors import CelltwinError
from celltwin.interface import Start

COMPILER, EMULATOR, SIZE = "arm-none-eabi-gcc", "qemu-system-arm", "arm-none-eabi-size"
CLOCK = 160e6  # Hz, of the estimated time
SHIFT, SYSTICK = 6, 25e6  # 2^SHIFT ns an instruction; Hz, the timer of the emulated boards
TICKS = SYSTICK * 2**SHIFT * 1e-9  # of the timer an instruction


@dataclass(frozen=True)
class Board:
    """A processor, and the emulated board that has it."""

    machine: str
    flags: tuple[str, ...]
    cycles: float  # an instruction, assumed for the estimate: loads and multiply-adds take more than one


BOARDS = {
    "cortex-m4": Board("mps2-an386", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"), 1.5),
    "cortex-m7": Board("mps2-an500", ("-mcpu=cortex-m7", "-mfpu=fpv5-d16"), 1.0),
}

LINK = """ENTRY(reset)
MEMORY { FLASH (rx) : ORIGIN = 0x00000000, LENGTH = 4M  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.ARM.ex*) } > FLASH
  .data : { *(.data*) } > RAM
  .bss : { *(.bss*) *(COMMON) } > RAM
  stack_low = 0x20200000;
  stack_top = 0x20300000;
}
"""

HARNESS = """#include <stdint.h>
#include "NAME.h"

#define SAMPLES COUNT
#define OUTPUTS WIDTH
extern uint32_t stack_low, stack_top;
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[] = {&stack_top, (void *)reset};
static const REAL inputs[SAMPLES][CHANNELS] = {
INPUTS};
static NAME_state state;

static void semihost(uint32_t what, const void *argument)
{
    register uint32_t r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(uint32_t number)
{
    char text[10];
    for (int i = 0; i < 8; ++i) { text[i] = "0123456789abcdef"[(number >> (28 - 4 * i)) & 15u]; }
    text[8] = '\\n';
    text[9] = 0;
    semihost(4, text);
}

static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010u;

static void __attribute__((noinline)) paint(void)
{
    uint32_t here;
    for (uint32_t *p = &stack_low; p < &here - 32; ++p) { *(volatile uint32_t *)p = 0xA5A5A5A5u; }
}

static uint32_t __attribute__((noinline)) painted(void)
{
    const volatile uint32_t *p = &stack_low;
    while (*p == 0xA5A5A5A5u) { ++p; }
    return (uint32_t)p;
}

static void __attribute__((noinline)) begin(void)
{
    const NAME_start start = {START};
    NAME_init(&state, &start);
}

static NAME_output output;
static NAME_input input;

void reset(void)
{
    uint32_t here, depth, ticks;
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* the floating-point unit on */
    systick[1] = 0xFFFFFFu;
    systick[2] = 0;
    systick[0] = 5;
    paint();
    here = (uint32_t)__builtin_frame_address(0);
    if (USED) { begin(); }
    depth = here - painted();
    say(depth);
    paint();
    for (int k = 0; k < SAMPLES; ++k) {
READ
        const uint32_t before = systick[2];
        if (USED) { NAME_step(&state, &input, &output); }
        ticks = (before - systick[2]) & 0xFFFFFFu;
        say(ticks);
WRITE
    }
    say(here - painted());
    __asm__ volatile("" : : "r"(&state), "r"(&input), "r"(&output)); /* in either image */
    semihost(0x18, (const void *)0x20026);
    for (;;) { }
}
"""


@dataclass(frozen=True)
class Cost:
    """Of one twin on one processor; bytes, and instructions of a step (median over the samples)."""

    cpu: str
    flash: int
    ram: int
    stack: int
    instructions: float
    said: np.ndarray  # [samples, outputs but valid]

    @property
    def microseconds(self) -> float:
        """An estimate of the time of a step at CLOCK, from the instructions."""
        return self.instructions * BOARDS[self.cpu].cycles / CLOCK * 1e6


def available() -> bool:
    """Are cross compiler and emulator here?"""
    return all(shutil.which(tool) for tool in (COMPILER, EMULATOR, SIZE))


def measure(source: Source, start: Start, inputs: np.ndarray, cpu: str = "cortex-m4") -> Cost:
    """Compile for a processor and replay inputs [samples, source.inputs] from a start.

    Raises CelltwinError where a tool is missing, the twin does not compile, or the emulator does not come to an end.
    """
    if not available():
        raise CelltwinError(
            "the tools for microcontrollers are not here",
            expected=f"{COMPILER} and {EMULATOR}",
            fix="apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
        )
    if cpu not in BOARDS:
        raise CelltwinError("there is no such processor", got=cpu, expected=", ".join(BOARDS))
    with tempfile.TemporaryDirectory(prefix="celltwin-") as folder:
        here = Path(folder)
        (here / f"{source.name}.h").write_text(source.header, encoding="utf-8")
        (here / f"{source.name}.c").write_text(source.source, encoding="utf-8")
        (here / "link.ld").write_text(LINK, encoding="utf-8")
        sizes = [_image(here, source, start, inputs, cpu, used) for used in (True, False)]
        lines = _run(here / "used.elf", cpu, len(inputs))
    numbers = np.array([int(line, 16) for line in lines], np.uint32)
    rows = numbers[1:-1].reshape(len(inputs), -1)
    flash, ram = (with_ - without for with_, without in zip(*sizes, strict=True))
    return Cost(
        cpu,
        flash,
        ram + sum(4 * int(np.prod(m.shape)) for m in source.state),
        int(max(numbers[0], numbers[-1])),
        float(np.median(rows[:, 0])) / TICKS,
        rows[:, 1:].copy().view(np.float32),
    )


def _image(here: Path, source: Source, start: Start, inputs: np.ndarray, cpu: str, used: bool) -> tuple[int, int]:
    """Build the image, with the twin or with everything but the twin; its bytes of flash and of RAM."""
    says = [n for n in source.outputs if n != "valid"]
    read = "\n".join(f"        input.{n} = inputs[k][{i}];" for i, n in enumerate(source.inputs))
    write = "\n".join(f"        say(*(const uint32_t *)(const void *)&output.{n});" for n in says)
    text = HARNESS.replace("COUNT", str(len(inputs))).replace("WIDTH", str(len(says)))
    text = text.replace("CHANNELS", str(len(source.inputs))).replace("START", ", ".join(map(_number, start)))
    text = text.replace("INPUTS}", "\n".join("{" + ", ".join(map(_number, row)) + "}," for row in inputs) + "}")
    text = text.replace("READ", read).replace("WRITE", write).replace("USED", str(int(used)))
    name = "used" if used else "bare"
    (here / f"{name}.c").write_text(text.replace("REAL", source.real).replace("NAME", source.name), encoding="utf-8")
    flags = (*BOARDS[cpu].flags, "-mthumb", "-mfloat-abi=hard", "-O2", "-std=gnu99", "-ffunction-sections")
    command = [COMPILER, *flags, "-fdata-sections", "-nostartfiles", "-T", "link.ld", "-Wl,--gc-sections"]
    command += ["--specs=nano.specs", "--specs=nosys.specs", "-Wl,--no-warn-rwx-segments"]
    command += [f"{name}.c", f"{source.name}.c", "-o", f"{name}.elf", "-lm"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    if done.returncode:
        raise CelltwinError(f"{COMPILER} failed", got=done.stderr.strip()[:400], expected="an image")
    table = subprocess.run([SIZE, "-A", f"{name}.elf"], cwd=here, capture_output=True, text=True, check=True).stdout
    parts = {m[1]: int(m[2]) for m in re.finditer(r"^(\.\w+)\s+(\d+)", table, re.MULTILINE)}
    moving = parts.get(".data", 0)
    return parts.get(".text", 0) + moving, moving + parts.get(".bss", 0)


def _number(value: Any) -> str:
    value = float(np.float32(value))
    if value != value:
        return '__builtin_nanf("")'
    return f"{value!r}f"


def _run(image: Path, cpu: str, samples: int) -> list[str]:
    """The numbers that an image says before it ends."""
    command = [
        EMULATOR,
        "-M",
        BOARDS[cpu].machine,
        "-nographic",
        "-icount",
        f"shift={SHIFT},sleep=off",
        "-monitor",
        "none",
    ]
    command += ["-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        raise CelltwinError(f"{EMULATOR} did not come to an end in 120 s", got=f"{samples} samples") from error
    lines = [line for line in (done.stdout + done.stderr).split() if re.fullmatch(r"[0-9a-f]{8}", line)]
    if len(lines) < 2 + samples:
        raise CelltwinError(f"{EMULATOR} ended early", got=(done.stdout + done.stderr).strip()[-300:])
    return lines
