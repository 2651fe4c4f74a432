"""Sphinx settings of the book. `python -m lib.tools.book` copies this folder, adds the notebooks and builds there."""

import re
from importlib.resources import files

project = "What does a compressed language model forget?"
html_title = project
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinxcontrib.bibtex"]
autodoc_typehints = "none"  # docstrings say what is handed in
default_role = "code"  # of the docstrings, which are written in single backticks

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "alpha"

numfig = True
math_numfig = True
numfig_format = {"figure": "Figure %s"}
mathjax_path = "tex-svg-full.js"  # of the package sphinx-mathjax-offline
mathjax3_config = {"tex": {"packages": {"[+]": ["textmacros"], "[-]": ["noundefined"]}},  # unknown commands are errors
                   "options": {"enableMenu": False}}

html_theme = "sphinx_book_theme"
html_theme_options = {"use_download_button": False, "show_toc_level": 2, "footer_content_items": [],
                      "navbar_persistent": []}
html_context = {"default_mode": "auto"}
html_static_path = ["_static", str(files("sphinx-mathjax-offline") / "static" / "mathjax" / mathjax_path)]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = False
html_show_search_summary = False  # they would be fetched, which a page opened from disk may not do


def number_by_notebook(env):
    """Figure 4.2 and equation (4.2) stand in notebook 04, of each task alike."""
    for page, kinds in env.toc_fignumbers.items():
        chapter = re.search(r"\b0?(\d+[a-z]?)_", page)
        for numbers in kinds.values():
            for place, key in enumerate(sorted(numbers, key=numbers.get), 1):
                numbers[key] = (chapter[1], place) if chapter else (place,)


def setup(app):
    app.connect("env-check-consistency", lambda app, env: number_by_notebook(env))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
