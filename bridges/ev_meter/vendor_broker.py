"""The connection to the vendor's MQTT broker: one connection, one subscription, one kind of request.

`request_status` takes a charger and nothing else, so that no other command can be published by mistake.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import Counter

from bridges.ev_meter import login
from bridges.ev_meter.config import ChargerConfig
from bridges.ev_meter.frame import (
    MalformedFrame,
    UnsupportedFrame,
    VendorAccount,
    WorkingInfo,
    decode,
    encode_request,
)
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.link import BrokerLink
from csms.mqtt.client.message import MqttMessage

log = structlog.get_logger()
_REPLIES: Final = Counter(
    "csms_ev_meter_replies_total", "Messages from EV-Meter chargers, by result.", ["result"]
)
_REQUESTS: Final = Counter(
    "csms_ev_meter_requests_total", "Requests to EV-Meter chargers, by result.", ["result"]
)

FrameListener = Callable[[WorkingInfo], None]


class RequestNotSent(Exception):
    """The broker could not be reached, or refused the request."""


def broker_link(
    host: str, port: int, *, username: str | None = None, password: str | None = None, version: str = "3.1.1"
) -> LinkConfig:
    """Configure a link to a broker. Tests and the demo use one of their own in the place of the vendor's."""
    return LinkConfig(
        host=host,
        port=port,
        version=version,
        # Many installations share the vendor's broker: client ids must be unique, and at most 23 characters are safe.
        client_id="evm-{instance}",
        node=secrets.token_hex(5),
        name="ev-meter",
        username=username,
        password=password,
        keepalive_s=60,
        topics_hidden=True,
    )


def vendor_link(password: str) -> LinkConfig:
    """Configure a link to the vendor's broker, whose host, port and user name are constants (NFR-1)."""
    return broker_link(login.HOST, login.PORT, username=login.USERNAME, password=password)


class VendorBroker:
    """Requests the status of chargers and passes on their replies. `rate_s`: at most so many requests a second."""

    def __init__(self, account: VendorAccount, link: LinkConfig, *, rate_s: float) -> None:
        self._link = BrokerLink(link)
        self._request = encode_request(account)
        self._reply_topic = f"/BLEWIFI/users/{account.user_id}"
        self._request_interval_s = 1 / rate_s
        self._next_request_at = 0.0
        self._rate_limit = asyncio.Lock()  # first come, first served
        self._listeners: dict[str, FrameListener] = {}

    @contextmanager
    def listening(self, charger: ChargerConfig, listener: FrameListener) -> Iterator[None]:
        """Call `listener` with every valid frame of a charger, requested or not. It must not block."""
        self._listeners[charger.device_id] = listener
        try:
            yield
        finally:
            del self._listeners[charger.device_id]

    async def run(self) -> None:
        """Stay connected until cancelled. Only the account's own reply topic is ever subscribed to."""
        await self._link.subscribe(self._reply_topic, self._on_message)
        await self._link.run()

    async def ready(self, timeout_s: float) -> None:
        """Wait for the connection, and for the next request that the rate allows. Raises RequestNotSent."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.wait_connected()
        except TimeoutError:
            raise RequestNotSent(self._link.last_error or "no connection") from None
        async with self._rate_limit:
            await asyncio.sleep(self._next_request_at - time.monotonic())
            self._next_request_at = time.monotonic() + self._request_interval_s

    async def request_status(self, charger: ChargerConfig) -> None:
        """Request a charger's WorkingInfo, which goes to its listener. Raises RequestNotSent."""
        message = MqttMessage(topic=f"/BLEWIFI/Chargers/{charger.address}", body=self._request)
        try:
            await self._link.publish(message)
        except (BrokerDisconnected, PublishRefused) as error:
            _REQUESTS.labels("not_sent").inc()
            raise RequestNotSent(str(error)) from None
        _REQUESTS.labels("sent").inc()

    def _on_message(self, message: MqttMessage) -> None:
        _REPLIES.labels(self._deliver(message)).inc()

    def _deliver(self, message: MqttMessage) -> str:
        """Pass a reply to its charger's listener. Return the result under which it is counted."""
        if message.retain:
            return "retained"
        try:
            info = decode(message.body)
        except UnsupportedFrame:
            return "other_type"
        except MalformedFrame as error:
            log.debug("ev_meter_frame_malformed", error=str(error), size=len(message.body))
            return "invalid"
        listener = self._listeners.get(info.device_id)
        if listener is None:
            return "other_charger"
        listener(info)
        return "taken"
