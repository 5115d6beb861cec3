"""What the embedded servers say when they cannot run here."""


class EmbeddedError(Exception):
    """An embedded server cannot be used; the text is one sentence that says what to do about it."""
