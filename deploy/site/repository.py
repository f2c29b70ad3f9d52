"""Makes one site of a repository's pages: the tree of pages, and links to files and folders that are no pages.

A link to a folder leads to the folder's README, else to the root of its crate, else to a list of its files. A link
to another file leads to a page with its text.
"""

import fnmatch
import html
import os
import pathlib
import posixpath
import re
import shutil

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

# The pages below each page, by captions: each page of the repository is below one other. Names are relative.
TREE = {
    "README": {
        "Use": [
            "deploy/add-to-your-app",
            "crates/curfew-protocol/PROTOCOL",
            "deploy/centrifuge",
            "crates/curfew/CONFIG",
            "crates/curfew/METRICS",
        ],
        "Operate": [
            "deploy/README",
            "deploy/install",
            "k8s/README",
            "deploy/identity-providers",
            "deploy/upgrading",
        ],
        "Develop": [
            ".github/CONTRIBUTING",
            "crates/README",
            "crates/decisions/README",
            "tests/README",
            "benches/README",
        ],
        "Project": ["CHANGELOG", "deploy/release/README", ".github/SECURITY"],
    },
    "crates/decisions/README": {"": ["0*"]},
    "benches/README": {"": ["results/*"]},
    "tests/README": {"": ["*/README", "*/*/README"]},
}

# Files that stand for a folder without a README.
ROOTS = ["README.md", "src/lib.rs", "src/main.rs"]

# Below it are the pages that are made here.
FILES = "files"

# Pages of the code host, which a site does not have.
OF_THE_HOST = "../../security/"


def add_tree(app, docname, source):
    """Appends the tables of contents that the sidebar is made of."""
    folder = posixpath.dirname(docname)
    for caption, pages in TREE.get(docname, {}).items():
        # A page that is in no table is a warning, so a name that is wrong here does not go unnoticed.
        pages = [page for page in pages if is_there(app, posixpath.join(folder, page))]
        if not pages:
            continue
        lines = ["", "", "```{toctree}", ":hidden:", ":glob:"]
        lines += [f":caption: {caption}"] if caption else []
        lines += pages
        source[0] += "\n".join([*lines, "```", ""])


def is_there(app, pattern):
    """True if a page has this name, or one like it."""
    return any(fnmatch.fnmatchcase(page, pattern) for page in app.env.found_docs)


class LinksToTheRepository(SphinxTransform):
    """Replaces links to what is no page, which MyST takes for downloads, or for unknown."""

    default_priority = 100

    def apply(self, **kwargs):
        for link in list(self.document.findall(is_link)):
            target = link["reftarget"]
            if target.startswith(OF_THE_HOST):
                link.replace_self(link.children)
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(self.env.docname), target))
            at = pathlib.Path(self.env.srcdir, path)
            if at.is_dir():
                path = next((f"{path}/{root}" for root in ROOTS if (at / root).is_file()), path)
            if path.endswith(".md"):
                page = addnodes.pending_xref(refdomain="doc", reftype="myst", refexplicit=True)
                page.update_all_atts({"refdoc": self.env.docname, "reftarget": path.removesuffix(".md")})
                page["reftargetid"] = None
                page += link.children
                link.replace_self(page)
            elif os.path.lexists(pathlib.Path(self.env.srcdir, path)):
                linked(self.env)[path] = None
                here = self.app.builder.get_target_uri(self.env.docname)
                there = self.app.builder.get_target_uri(f"{FILES}/{path}")
                reference = nodes.reference("", "", *link.children, internal=True)
                reference["refuri"] = relative_uri(here, there)
                link.replace_self(reference)


def is_link(node):
    """True for a link whose target is no page, as far as MyST can tell."""
    unknown = isinstance(node, addnodes.pending_xref) and node.get("refdomain") is None
    return unknown or isinstance(node, addnodes.download_reference)


def linked(env):
    """The files and folders that pages link to, in order."""
    if not hasattr(env, "linked_files"):
        env.linked_files = {}
    return env.linked_files


def merge_linked(app, env, docnames, other):
    """Takes over what another process has read."""
    linked(env).update(linked(other))


def file_pages(app):
    """The pages of files and folders: their text, or their content."""
    for path in linked(app.env):
        at = pathlib.Path(app.srcdir, path)
        name = f"{FILES}/{path}"
        title = html.escape(path)
        if at.is_dir():
            rows = "".join(f"<li><code>{html.escape(child)}</code></li>" for child in names(at))
            text = f"<ul>{rows}</ul>"
        else:
            lexer = {".rs": "rust", ".toml": "toml", ".yml": "yaml"}.get(at.suffix, "none")
            text = app.builder.highlighter.highlight_block(at.read_text(), lexer)
        body = f"<section><h1><code>{title}</code></h1>{text}</section>"
        yield name, {"title": title, "body": body}, "page.html"


def names(folder):
    """The names in a folder, without what is hidden or made by a run."""
    for child in sorted(folder.iterdir()):
        if not child.name.startswith((".", "__")):
            yield child.name + "/" * child.is_dir()


def copy_front_page(app, error):
    """Makes the front page the one that a server shows at /; its links are the same from there."""
    if error is None:
        shutil.copy(pathlib.Path(app.outdir, "README.html"), pathlib.Path(app.outdir, "index.html"))
        check(pathlib.Path(app.outdir))


def check(site):
    """Fails if a link within the site leads to no file or no anchor."""
    ids, links = {}, []
    for page in site.rglob("*.html"):
        text = page.read_text()
        ids[page] = set(re.findall(r'\sid="([^"]+)"', text))
        links += [(page, html.unescape(link)) for link in re.findall(r'\s(?:href|src)="([^"]*)"', text)]
    broken = []
    for page, link in links:
        path, _, anchor = link.partition("#")
        path = path.partition("?")[0]
        if "://" in link or link.startswith(("data:", "mailto:")):
            continue
        target = pathlib.Path(os.path.normpath(page.parent / path)) if path else page
        if not target.is_file() or anchor and anchor not in ids.get(target, set()):
            broken.append(f"{page.relative_to(site)}: {link}")
    if broken:
        raise ExtensionError("broken links:\n" + "\n".join(sorted(set(broken))))


def setup(app):
    app.connect("source-read", add_tree)
    app.add_transform(LinksToTheRepository)
    app.connect("env-merge-info", merge_linked)
    app.connect("html-collect-pages", file_pages)
    app.connect("build-finished", copy_front_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
