"""Settings of the web site, for Sphinx. make_site.py collects the pages and builds it."""

project = "ML Pipeline Security"
author = "The contributors to ML Pipeline Security"
copyright = author  # no year: nothing to keep current
language = "en"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 6  # links to headings, as GitHub makes them
nitpicky = True  # a link that leads nowhere is a warning, and make_site.py takes warnings for errors

highlight_language = "none"  # most blocks are commands and what they print
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["wrap.css"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_last_updated_fmt = None
html_theme_options = {
    # darker than the theme's: 4.5 to 1 on white, and the same on the dark background
    "light_css_variables": {"color-brand-primary": "#0b4f8a", "color-brand-content": "#0b4f8a"},
    "dark_css_variables": {"color-brand-primary": "#8ab8ff", "color-brand-content": "#8ab8ff"},
}
