"""Values as tests use them: present where a type allows None, and None where no call reads an argument."""

from typing import Any, Final, TypeVar

T = TypeVar("T")
# For an argument that the code under test takes and does not use in this test.
NOT_USED: Final[Any] = None


def present(value: T | None) -> T:
    """Return the value. Raises AssertionError if it is None."""
    assert value is not None
    return value


def of_type(kind: type[T], value: object) -> T:
    """Return the value. Raises AssertionError if it is of another type."""
    assert isinstance(value, kind)
    return value
