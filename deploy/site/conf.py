"""Sphinx' configuration: the pages of the repository, where they lie, as one site. Run by `build`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

project = "Curfew"
copyright = "the authors of Curfew, Apache-2.0"
extensions = ["myst_parser", "repository"]

# The source folder is the repository's root.
root_doc = "README"
include_patterns = ["**.md"]
exclude_patterns = [
    "**/node_modules",
    "**/target",
    ".git",
    ".github/ISSUE_TEMPLATE",
    ".github/pull_request_template.md",
    "crates/curfew-auth/tests",
    "target",
]

# Anchors as code hosts make them, at every depth of headings.
myst_heading_anchors = 6
nitpicky = True

html_theme = "furo"
html_title = "Curfew"
html_static_path = ["static"]
html_css_files = ["curfew.css"]
html_favicon = "static/icon.svg"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    # The colours of the demo page.
    "light_css_variables": {"color-brand-primary": "#7a4d00", "color-brand-content": "#1d5a90"},
    "dark_css_variables": {"color-brand-primary": "#f5bf5b", "color-brand-content": "#8ec2f0"},
}
highlight_language = "none"
