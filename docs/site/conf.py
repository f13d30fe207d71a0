"""The settings of the site, which Sphinx builds from docs/*.md and from the package itself."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from dinogrl_jax import __version__ as release  # noqa: E402, F401

project = "dinogrl_jax"
project_copyright = "the authors of dinogrl_jax, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated", "pages"]
exclude_patterns = ["site"]
nitpicky = True
# Shapes of arrays and types of other libraries: their pages are not fetched.
nitpick_ignore_regex = [("py:.*", r"(?!dinogrl_jax).*")]
default_role = "literal"  # docstrings are Markdown in this
autodoc_typehints = "none"  # arguments have their meaning; shapes stand there
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]

html_theme = "furo"
html_title = f"dinogrl_jax {release}"
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False
