"""Docstrings of celltwin as reStructuredText: they are prose with indented equations and single backticks.

Also: the comments behind the fields of a class, which hold shapes and units, become part of its description.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

from sphinx.application import Sphinx

SECTIONS = ("Args:", "Returns:", "Raises:", "Parameters:", "Attributes:")


def reworded(lines: list[str]) -> list[str]:
    """Prose with indented blocks as reStructuredText: such a block is shown as it stands."""
    done: list[str] = []
    lines = _without_rules(lines)
    literal = listed = section = False
    for line in lines:
        indented = line.startswith("    ") or line.startswith("  ")
        if line.strip() in SECTIONS:
            section = True
            done += ["", f"**{line.strip().rstrip(':')}**", ""]
            continue
        if section and (indented or re.match(r"[\w, ]+: ", line)):
            name, colon, rest = line.strip().partition(": ")
            if colon and re.fullmatch(r"[\w, ]+", name):
                done.append(f"- ``{name}``: {_escaped(rest)}")
            else:
                done.append(f"  {_escaped(line.strip())}")
            continue
        if line.strip() and not indented:
            section = False
        bullet = line.startswith("- ")
        if bullet and done and done[-1].strip() and not listed:
            done.append("")
        listed = bullet or (listed and indented)
        if indented and not listed and not literal and (not done or not done[-1].strip()):
            done += ["::", ""]
            literal = True
        elif line.strip() and not indented:
            literal = False
        done.append(line if literal else ("  " if listed and not bullet else "") + _escaped(line.strip()))
    return [*done, ""]


def _without_rules(lines: list[str]) -> list[str]:
    """Headings that are underlined, as scikit-learn has them, as headings with a colon."""
    heading = {n for n, line in enumerate(lines[1:]) if re.fullmatch(r"-{4,}", line.strip())}
    return [f"{line.strip()}:" if n in heading else line for n, line in enumerate(lines) if n - 1 not in heading]


def _escaped(text: str) -> str:
    """Single backticks are code; nothing else is markup."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return re.sub(r"([*|_`\\])", r"\\\1", text)
    return "".join(
        f"\\ ``{part}``\\ " if i % 2 else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for i, part in enumerate(parts)
    )


def fields(cls: type) -> list[tuple[str, str]]:
    """The annotated fields of a class that carry a comment, with it."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        body = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return []
    lines, found = source.splitlines(), []
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            rest = lines[node.end_lineno - 1][node.end_col_offset :] if node.end_lineno else ""
            comment = re.match(r"\s*#\s*(.+)", rest)
            if not node.target.id.startswith("_"):
                found.append((node.target.id, comment[1] if comment else ""))
    return found if any(comment for _, comment in found) else []


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = reworded(lines)
    if what in ("class", "exception") and (known := fields(obj)):
        for field, comment in known:
            lines.append(f"- ``{field}``" + (f": {_escaped(comment)}" if comment else ""))
        lines.append("")


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> Any:
    """Defaults that are no Python would keep the whole from being read as such."""
    return (signature and re.sub(r"<(factory|object|function)[^>]*>", "...", signature)), returns


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple have no docstring of their own; what scikit-learn adds is not ours."""
    if type(obj).__name__ == "_tuplegetter" or (getattr(obj, "__doc__", "") or "").startswith("Alias for field"):
        return True
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
