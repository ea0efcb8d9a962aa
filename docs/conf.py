"""Sphinx: how the documentation is built. `sphinx-build -W docs build/docs`, with the extra `docs` installed."""

import sys
from pathlib import Path

import ringcast

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "Ringcast"
author = copyright = "The Ringcast developers"
version = release = ringcast.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "compiled",
]
exclude_patterns = ["_extensions", "benchmark.md"]  # which performance.md includes

html_theme = "furo"
html_title = f"Ringcast {version}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# A name in single back-quotes, as the docstrings have it, is code, and a link where there is something of that name.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
