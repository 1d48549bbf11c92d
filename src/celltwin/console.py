"""What commands print with: results to stdout, what is said about them to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console

from celltwin.data.record import Record

# A pipe or a log file has no width of its own; tables need about this.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)


def escape(text: str) -> str:
    """Text in which nothing is markup."""
    return text.replace("[", r"\[")


def note(text: str) -> None:
    """Something the user should know, on stderr."""
    err.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def note_gaps(records: Iterable[Record]) -> None:
    """Say which records have gaps: the current after one is taken to have flowed all through it."""
    for record in records:
        if len(record.gaps):
            longest = float(record.dt[record.gaps].max())
            note(
                f"{record.label} has {len(record.gaps)} gaps of up to {longest:.0f} s: "
                "its charge is uncertain after them"
            )
