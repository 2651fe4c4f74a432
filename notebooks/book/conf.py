"""Sphinx settings of the book. `python -m lib.tools.book.build` copies this folder, puts the notebooks beside it and builds there."""

import re

project = "What does a compressed language model forget?"
html_title = project
language = "en"
extensions = ["myst_nb", "sphinxcontrib.bibtex"]
exclude_patterns = ["tables"]

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
mathjax_path = "mathjax/tex-svg-full.js"  # lib.tools.book.build puts it there
mathjax3_config = {"tex": {"packages": {"[+]": ["textmacros"], "[-]": ["noundefined"]}},  # an unknown command is an error
                   "options": {"enableMenu": False}}

html_theme = "sphinx_book_theme"
html_theme_options = {"use_download_button": False, "show_toc_level": 2, "footer_content_items": [], "navbar_persistent": []}
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = False
html_show_search_summary = False  # they would be fetched, which a page opened from disk may not do


def number_by_notebook(env):
    """Figure 4.2 and equation (4.2) stand in notebook 04, in each profile's copy of it alike."""
    for page, kinds in env.toc_fignumbers.items():
        chapter = re.match(r"0?(\d+[a-z]?)_", page.rpartition("/")[2])
        for found in kinds.values():
            for place, key in enumerate(sorted(found, key=found.get), 1):
                found[key] = (chapter[1], place) if chapter else (place,)


def setup(app):
    app.connect("env-check-consistency", lambda app, env: number_by_notebook(env))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
