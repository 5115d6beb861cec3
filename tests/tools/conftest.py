"""A small repository for the tools to read."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Written = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """`written({"csms/node.py": "…"})`: the root of a tree with these files."""

    def write(contents: Mapping[str, str]) -> Path:
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write
