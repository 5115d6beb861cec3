"""Read the repository: its files, its Python modules as syntax trees, its settings in pyproject.toml."""

import ast
import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("csms", "bridges")

# Neither of these folders holds text that was written here.
_SKIPPED = {"__pycache__", "node_modules", "vendor"}


@dataclass(frozen=True, slots=True)
class Module:
    """A Python module: where it is, below the repository's root, and what it is made of."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The dotted name that an import would use."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def files(root: Path, *tops: str, endings: tuple[str, ...] = (".py",)) -> Iterator[Path]:
    """The files below the folders `tops` of `root` that have one of these endings, in order."""
    for top in tops:
        for path in sorted((root / top).rglob("*")):
            inside = path.relative_to(root)
            if path.suffix in endings and path.is_file() and not _SKIPPED.intersection(inside.parts):
                yield path


def modules(root: Path = REPOSITORY, *tops: str) -> list[Module]:
    """The parsed modules of `tops`, or of the packages that are installed: csms and bridges."""
    return [_parsed(path.relative_to(root), path.read_text()) for path in files(root, *(tops or PACKAGES))]


@functools.cache  # several rules read the same modules
def _parsed(path: Path, text: str) -> Module:
    return Module(path, text, ast.parse(text, filename=str(path)))


def settings(root: Path = REPOSITORY) -> dict[str, Any]:
    """The table `[tool.house]` of pyproject.toml; empty where there is none."""
    project = root / "pyproject.toml"
    if not project.is_file():
        return {}
    found: dict[str, Any] = tomllib.loads(project.read_text()).get("tool", {}).get("house", {})
    return found
