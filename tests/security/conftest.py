from pathlib import Path

import pytest

from tests.e2e.conftest import node, start_node
from tests.security.stations import Pki

__all__ = ["node", "start_node"]


@pytest.fixture
def certificates(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")
