"""Why a publish can fail."""

from csms.errors import CsmsError

NO_MATCHING_SUBSCRIBERS = 0x10
# MQTT 5, 2.4: the same packet would be refused again. Other reasons (quota exceeded, busy …) may pass with time.
_PERMANENT = frozenset({0x80, 0x83, 0x87, 0x90, 0x95, 0x99})


class BrokerDisconnected(CsmsError):
    """There is no connection, or it ended before the answer: whether the broker has the message is unknown."""


class PublishRefused(CsmsError):
    """The broker refused a message: MQTT 5 reason code (>= 0x80) and its name. MQTT 3.1.1 has no such answer."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(f"{name} (0x{code:02X})")
        self.code = code
        self.name = name

    @property
    def permanent(self) -> bool:
        return self.code in _PERMANENT
