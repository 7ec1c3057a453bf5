"""The configuration of Sphinx, which renders the pages that `build_site.py` has collected."""

from bkrules import __version__

project = "bk"
author = "the authors of bk"
version = release = __version__
root_doc = "index"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"bk {__version__}"
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_permalinks_icon = "#"
html_static_path = ["_static"]
html_css_files = ["bk.css"]
smartquotes = False  # an option begins with two hyphens
highlight_language = "text"
pygments_style, pygments_dark_style = "default", "github-dark"
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page of a reference has several parts with a title each
