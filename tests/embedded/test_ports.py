import socket
from collections.abc import Iterator

import pytest

from csms.embedded.errors import EmbeddedError
from csms.embedded.ports import any_free_port, is_accepting, is_free, next_free_port
from tests.harness.servers import unused_port


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", unused_port())) as server:
        yield server.getsockname()[1]


def test_a_port_with_a_server_is_not_free_and_accepts(listening: int) -> None:
    assert not is_free(listening)
    assert is_accepting(listening)


def test_a_port_without_a_server_is_free_and_refuses(unused_port: int) -> None:
    assert is_free(unused_port)
    assert not is_accepting(unused_port)


def test_a_server_on_every_interface_occupies_the_loopback_port() -> None:
    with socket.create_server(("0.0.0.0", unused_port())) as server:
        assert not is_free(server.getsockname()[1])


def test_a_wanted_port_that_is_free_is_chosen(unused_port: int) -> None:
    assert next_free_port(unused_port) == unused_port


def test_a_taken_port_gives_the_next_free_one(listening: int) -> None:
    found = next_free_port(listening)
    assert listening < found < listening + 100
    assert is_free(found)


def test_ports_that_are_given_as_taken_are_skipped(unused_port: int) -> None:
    assert next_free_port(unused_port, taken={unused_port}) > unused_port


def test_no_free_port_in_the_range_is_an_error(listening: int) -> None:
    with pytest.raises(EmbeddedError, match="stop one of the programs"):
        next_free_port(listening, tries=1)


def test_zero_asks_for_any_port() -> None:
    assert is_free(next_free_port(0))
    assert is_free(any_free_port())
