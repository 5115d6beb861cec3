"""The link for what is published in large numbers: events, state, the protocol stream. It does not subscribe."""

from csms.mqtt.client.errors import BrokerDisconnected
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.publisher import PublishCallback, Publisher
from csms.mqtt.client.reconnecting import ReconnectingLink


class PublishingLink(ReconnectingLink[Publisher]):
    """A Publisher that reconnects."""

    def _make(self) -> Publisher:
        return Publisher(self.config, self._down)

    def begin(self, message: MqttMessage, done: PublishCallback) -> None:
        """Publish without waiting. `done` is called once with the outcome, perhaps before this returns."""
        if self._connection is None:
            done(BrokerDisconnected(self.last_error or "There is no connection to the broker."))
        else:
            self._connection.begin(message, done)
