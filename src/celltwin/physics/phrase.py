"""Operations in words: "discharge at 1C until 2.5 V", "hold at 4.2 V until C/20 or for 1 h", "rest for 10 min".

    operation = ("charge" | "discharge" | "hold") "at" quantity {end} | "rest" {end}
    end       = ["," | "or" | "and"] ("until" quantity | "for" duration | "every" sampling period)

Written from the wording that users of cyclers know. A current may be given as a rate: 1C is the nominal capacity in
one hour, C/20 in twenty.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

from celltwin.data.record import SECONDS_PER_HOUR, Cell
from celltwin.errors import CelltwinError
from celltwin.physics.demand import (
    ConstantCurrent,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Limits,
    Operation,
    Rest,
)

# Of each unit, what it measures and how much of that (A, W, V, ohm, degC, s, Ah, fraction) it is.
UNITS = {
    "A": ("current", 1.0),
    "mA": ("current", 1e-3),
    "W": ("power", 1.0),
    "mW": ("power", 1e-3),
    "kW": ("power", 1e3),
    "V": ("voltage", 1.0),
    "mV": ("voltage", 1e-3),
    "ohm": ("resistance", 1.0),
    "Ω": ("resistance", 1.0),
    "mohm": ("resistance", 1e-3),
    "degC": ("temperature", 1.0),
    "°C": ("temperature", 1.0),
    "%": ("soc", 0.01),
    "Ah": ("charge", 1.0),
    "mAh": ("charge", 1e-3),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("duration", 1.0)),
    **dict.fromkeys(("min", "minute", "minutes"), ("duration", 60.0)),
    **dict.fromkeys(("h", "hr", "hour", "hours"), ("duration", SECONDS_PER_HOUR)),
    **dict.fromkeys(("d", "day", "days"), ("duration", 24 * SECONDS_PER_HOUR)),
}
NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
TOKEN = re.compile(
    rf"\s*(?:(?P<rate>(?P<times>{NUMBER})?\s*C(?:\s*/\s*(?P<hours>{NUMBER}))?)(?![A-Za-z])"
    rf"|(?P<number>{NUMBER})\s*(?P<unit>[A-Za-z°Ω%]+)|(?P<word>[A-Za-z]+)|(?P<comma>,)|(?P<rest>\S+))"
)
VERBS = ("charge", "discharge", "hold", "rest")
EXAMPLE = "such as 'discharge at 1C until 2.5 V or for 30 min'"


class _Reader:
    """The tokens of one phrase, read from left to right."""

    def __init__(self, text: str, cell: Cell):
        self.text, self.cell = text, cell
        self.tokens = list(TOKEN.finditer(text.rstrip()))

    def word(self) -> str:
        """The next word in lower case, empty where something else or nothing follows."""
        return (self.tokens[0]["word"] or self.tokens[0]["comma"] or "").lower() if self.tokens else ""

    def take(self, *words: str) -> str:
        """One of the words. Raises CelltwinError, with the nearest, where another or nothing follows."""
        if (word := self.word()) not in words:
            raise self.error(" or ".join(f"'{w}'" for w in words), words)
        self.tokens.pop(0)
        return word

    def quantity(self, *kinds: str) -> tuple[str, float]:
        """What is measured, one of the kinds, and how much."""
        expected, token = " or ".join(kinds), self.tokens[0] if self.tokens else None
        if token and token["rate"]:
            found = "current", float(token["times"] or 1) / float(token["hours"] or 1) * self.cell.nominal_capacity_ah
        elif token and token["unit"]:
            exact = {token["unit"]: UNITS[token["unit"]]} if token["unit"] in UNITS else {}
            near = exact or {name: unit for name, unit in UNITS.items() if name.lower() == token["unit"].lower()}
            if not near:
                raise self.error(f"{expected} with a unit", tuple(UNITS), token["unit"])
            kind, factor = next(iter(near.values()))
            found = kind, float(token["number"]) * factor
        else:
            raise self.error(f"{expected} as a number with a unit", ())
        if found[0] not in kinds:
            raise self.error(expected, ())
        self.tokens.pop(0)
        return found

    def error(self, expected: str, words: tuple[str, ...], part: str | None = None) -> CelltwinError:
        part = part or (self.tokens[0][0].strip() if self.tokens else "its end")
        near = difflib.get_close_matches(part.lower(), words, 1, 0.5)
        return CelltwinError(
            f"'{self.text}' is not understood",
            got=part,
            expected=expected,
            fix=f"did you mean '{near[0]}'?" if near else EXAMPLE,
        )


def parse(text: str, cell: Cell) -> Operation:
    """The operation that a phrase describes; rates are of the cell's nominal capacity.

    Raises CelltwinError that names the part which is not understood, and the nearest word.
    """
    reader = _Reader(text, cell)
    verb = reader.take(*VERBS)
    operation: Operation = Rest()
    if verb == "hold":
        reader.take("at")
        operation = ConstantVoltage(reader.quantity("voltage")[1])
    elif verb != "rest":
        reader.take("at")
        sign = 1.0 if verb == "charge" else -1.0
        kind, value = reader.quantity("current", "power", *(["resistance"] if sign < 0 else []))
        operation = {
            "current": ConstantCurrent(sign * value),
            "power": ConstantPower(sign * value),
            "resistance": ConstantResistance(value),
        }[kind]
    ends: dict[str, float] = {}
    period = None
    while reader.tokens:
        while reader.word() in (",", "and", "or"):
            reader.tokens.pop(0)
        which = reader.take("until", "for", "every")
        levels = ("voltage", "current", "soc", "temperature", "charge", "duration")
        kind, value = reader.quantity(*(levels if which == "until" else ("duration",)))
        if which == "every":
            period = value
        elif kind in ends:
            raise CelltwinError(
                f"'{text}' names two ends by {kind}", got=f"{ends[kind]:g} and {value:g}", expected="one"
            )
        else:
            ends[kind] = value
    return replace(operation, until=Limits(**ends), period=period)
