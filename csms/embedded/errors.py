"""The error of the embedded servers."""

from csms.errors import StartError


class EmbeddedError(StartError):
    """An embedded server cannot be used. The text says why and what to do."""
