"""`celltwin studio`: the page of a local web app, for those who would rather click."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celltwin import twin
from celltwin.console import out
from celltwin.data import datasets
from celltwin.errors import CelltwinError

MEGABYTE = 1 << 20


def studio(
    what: Annotated[
        str | None, typer.Argument(metavar="DATASET|TWIN|LOG", help="What to open: a dataset, a twin, or a log.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes any that is free.")] = 8765,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    upload_limit: Annotated[int, typer.Option(min=1, max=4096, metavar="MB", help="Largest file to drop.")] = 100,
) -> None:
    """See logs, train twins, try what-ifs and export, on a page that this machine serves to itself alone."""
    try:
        from celltwin.studio import server
    except ImportError as error:
        if (error.name or "").startswith("celltwin"):
            raise
        raise CelltwinError(
            "the studio needs a package that is not installed",
            got=f"no {error.name}",
            expected="nicegui 3",
            fix="pip install 'celltwin[studio]'",
        ) from error
    opened = server.Opened()
    if what is not None:
        path = Path(what)
        if path.suffix == ".twin" or what in twin.pretrained():
            opened.twin = twin.load(what)
        elif path.is_file() and path.suffix != ".toml":
            opened.log = path.resolve()
        else:
            with out.status(f"reading {what}"):
                opened.dataset = datasets.load(what)
                opened.dataset.split()  # a pattern that matches nothing is refused here, not on the page
    server.serve(opened, port, upload_limit * MEGABYTE, browser, lambda text: out.print(text, soft_wrap=True))
