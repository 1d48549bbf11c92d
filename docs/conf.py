"""How the site is built: `sphinx-build -W --keep-going -b html docs docs/_build`. No network is needed."""

import os
import shutil
import sys
from pathlib import Path

import celltwin

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# The notebooks live beside the other examples. Sphinx reads below docs/ only, so they are copied, where they differ.
NOTEBOOKS = HERE / "notebooks"
NOTEBOOKS.mkdir(exist_ok=True)
originals = {path.name: path for path in (HERE.parent / "examples" / "notebooks").glob("*.py")}
for stale in NOTEBOOKS.glob("*.py"):
    if stale.name not in originals:
        stale.unlink()
for name, path in originals.items():
    if not (NOTEBOOKS / name).exists() or (NOTEBOOKS / name).read_bytes() != path.read_bytes():
        shutil.copyfile(path, NOTEBOOKS / name)

# What one notebook compiled the next ones need not compile again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE / "_build" / ".compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

project = "celltwin"
author = "The celltwin developers"
copyright = "the celltwin developers, MIT licence"
release = version = celltwin.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_design",
    "mathml",
    "docstrings",
    "commands",
    "gallery",
]
exclude_patterns = ["_build", "_ext", "conf.py", "jupyter_execute"]

smartquotes = False

html_theme = "pydata_sphinx_theme"
html_title = "celltwin"
html_static_path = ["_static"]
html_css_files = ["celltwin.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "celltwin"},
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": []}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ".jupyter_cache")
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_execution_excludepatterns = ["*.md"]
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"


def _with_studio(app, page, source):
    """The page of the studio stands among the guides, where there is one."""
    if page == "guides/index" and (HERE / "studio.md").exists():
        source[0] = source[0].replace("\nrepeat\n```", "\nrepeat\n/studio\n```")


def setup(app):
    app.connect("source-read", _with_studio)
