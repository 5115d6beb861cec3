"""The broker of deploy/, for the tests of a module."""

from collections.abc import Callable, Iterator

import pytest

from tests.harness import deployed_broker
from tests.harness.deployed_broker import DeployedMosquitto
from tests.harness.servers import mosquitto_program

STATIONS = {"S1": "word-1", "S2": "word-2"}


@pytest.fixture
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DeployedMosquitto]]:
    """`deployed()` → a started Mosquitto with the files of deploy/; `acl=…` for another access list."""
    if mosquitto_program() is None or not deployed_broker.installed():
        pytest.skip("Mosquitto is not installed")
    started: list[DeployedMosquitto] = []

    def start(*, acl: str | None = None) -> DeployedMosquitto:
        server = DeployedMosquitto(tmp_path_factory.mktemp("deployed"), stations=STATIONS, acl=acl)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()
