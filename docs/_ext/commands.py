"""The reference of the command line, from the program itself: `{commands}` in a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
import typer.core
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from celltwin.cli import app as program


def plain(text: str | None) -> str:
    """Text without the mark-up of the terminal, for a cell of a Markdown table."""
    text = re.sub(r"(?<!\\)\[/?[a-z ]*\]", "", text or "").replace("\\[", "[")
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", r"\<").replace("*", r"\*").strip()


def described(name: str, command: Any) -> Iterator[str]:
    """One command as Markdown."""
    arguments = [p for p in command.params if isinstance(p, typer.core.TyperArgument)]
    options = [p for p in command.params if isinstance(p, typer.core.TyperOption) and "--help" not in p.opts]
    usage = " ".join(["celltwin", name, *("[OPTIONS]" if options else "",), *(_metavar(a) for a in arguments)])
    yield f"## celltwin {name}\n"
    yield plain(command.help) + "\n"
    yield f"```text\n{usage.strip()}\n```\n"
    if arguments:
        yield "| argument | meaning |\n|---|---|"
        for one in arguments:
            yield f"| `{_metavar(one)}` | {plain(getattr(one, 'help', ''))} |"
        yield ""
    if options:
        yield "| option | value | meaning |\n|---|---|---|"
        for one in options:
            flag = getattr(one, "is_flag", False)
            value = "" if flag else f"`{_metavar(one)}`"
            default = (
                "" if flag or one.default in (None, (), []) or callable(one.default) else f" Default: `{one.default}`."
            )
            many = " May be given several times." if one.multiple else ""
            yield f"| {', '.join(f'`{o}`' for o in one.opts)} | {value} | {plain(one.help)}{default}{many} |"
        yield ""
    if command.epilog:
        yield f"```text\n{plain(command.epilog).removeprefix('Example: ')}\n```\n"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).replace("|", " or ")


class Commands(SphinxDirective):
    """Every command with its arguments, options and example."""

    def run(self) -> list[nodes.Node]:
        group: Any = typer.main.get_command(program)
        text = "\n".join(line for name, command in group.commands.items() for line in described(name, command))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
