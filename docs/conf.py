"""Sphinx's configuration. The site mirrors the repository, so that a link works in both: `make docs`."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

ROOT = Path(__file__).parent.parent
log = getLogger(__name__)

project = "csms"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "examples/*/README.md"]
extensions = ["myst_parser"]
myst_heading_anchors = 4  # the anchors that GitHub makes
suppress_warnings = ["misc.highlighting_failure"]  # samples shorten JSON with "…"
html_theme = "furo"
html_title = "csms"
html_show_copyright = False
html_copy_source = False
html_extra_path = ["site"]


def check_mentions(_: Sphinx) -> None:
    """Warn of code and configuration that name a page of docs/ that does not exist."""
    files = [ROOT / "Makefile", *ROOT.glob("*.toml"), *ROOT.glob("*.yml"), ROOT / ".ci" / "run"]
    for folder in ("csms", "bridges", "tests", "benchmarks", "tools", "examples", "migrations"):
        files += (ROOT / folder).rglob("*.py")
    for file in files:
        if "tests/tools" in file.as_posix():  # repositories that those tests make up
            continue
        for page in re.findall(r"\bdocs/[\w./-]*\w", file.read_text(encoding="utf-8")):
            if not any(ROOT.glob(f"{page}*")):
                log.warning("%s names %s, which does not exist", file.relative_to(ROOT), page)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", check_mentions)
