"""The site builds without a warning, with every notebook executed, and what it shows is whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the docs extra is not installed")

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted(path.stem for path in (REPOSITORY / "examples" / "notebooks").glob("*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages. Notebooks that have not changed since they were last executed here are not executed again."""
    out = tmp_path_factory.mktemp("site") / "html"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(REPOSITORY / "docs"),
        str(out),
    ]
    # Notebooks draw inline, and train as users do: unoptimised programs take them three times as long.
    unwanted = {"MPLBACKEND", "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment["PYTHONWARNINGS"] = "default"
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return out


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_notebook_is_in_the_gallery_with_a_figure_of_its_own(site):
    shown = re.findall(
        r'class="shelf-card" href="notebooks/(\w+)\.html"><img alt="" src="([^"]+)"', text_of(site / "gallery.html")
    )
    assert sorted(name for name, _ in shown) == NOTEBOOKS
    assert len({image for _, image in shown}) == len(NOTEBOOKS)
    assert all((site / image).stat().st_size > 2000 for _, image in shown)


def test_every_family_has_a_place_on_a_method_page(site):
    from celltwin import jobs, models, pack_benchmark  # noqa: F401  jobs makes the estimators known

    pages = "".join(text_of(page) for page in (site / "methods").glob("*.html"))
    names = [family.name for family in models._families.values()] + list(pack_benchmark.TITLES)
    assert not [name for name in names if f">{name}</span>" not in pages]


def test_every_command_is_in_the_reference(site):
    import typer.main

    from celltwin.cli import app

    page = text_of(site / "reference" / "commands.html")
    assert not [name for name in typer.main.get_command(app).commands if f"<h2>celltwin {name}<" not in page]


def test_equations_became_mathml_and_nothing_is_fetched(site):
    assert text_of(site / "methods" / "kalman.html").count("<math") > 20
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+"', text_of(page))
        assert not [one for one in fetched if 'rel="canonical"' not in one], page


def test_no_page_is_a_stub(site):
    for page in site.rglob("*.html"):
        if page.name in ("genindex.html", "search.html", "py-modindex.html") or "_static" in page.parts:
            continue
        article = text_of(page).partition('<article class="bd-article">')[2].partition("</article>")[0]
        words = re.sub(r"<[^>]+>", " ", article).split()
        assert len(words) > 60, f"{page.relative_to(site)}: {len(words)} words"
