from pathlib import Path

import pytest

from tests.e2e.conftest import node, start_node
from tests.harness.security_clients import Pki

__all__ = ["node", "start_node"]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def certificates(original: Pki, tmp_path: Path) -> Pki:
    return original.copied(tmp_path / "pki")
