"""The vendor's broker as we use it: one connection, one subscription, one kind of message out.

Whatever could be published by mistake cannot: `ask` takes a charger and nothing else.
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
    "csms_ev_meter_replies_total", "EV-Meter messages, by what became of them.", ["result"]
)
_REQUESTS: Final = Counter(
    "csms_ev_meter_requests_total", "EV-Meter requests, by what became of them.", ["result"]
)

FrameListener = Callable[[WorkingInfo], None]


class RequestNotSent(Exception):
    """The broker could not be reached, or refused the request."""


def broker_link(
    host: str, port: int, *, username: str | None = None, password: str | None = None, version: str = "3.1.1"
) -> LinkConfig:
    """A broker that plays the vendor's, for tests and the demo."""
    return LinkConfig(
        host=host,
        port=port,
        version=version,
        # Many installations share the real broker: names must not collide, and 23 characters always fit.
        client_id="evm-{instance}",
        node=secrets.token_hex(5),
        name="ev-meter",
        username=username,
        password=password,
        keepalive_s=60,
        topics_hidden=True,
    )


def vendor_link(password: str) -> LinkConfig:
    """The one broker there is: host, port and login are the vendor's, and nobody's to choose."""
    return broker_link(login.HOST, login.PORT, username=login.USERNAME, password=password)


class VendorBroker:
    """Asks chargers and tells what they answer. `rate_s`: requests a second at most, whoever they go to."""

    def __init__(self, account: VendorAccount, link: LinkConfig, *, rate_s: float) -> None:
        self._link = BrokerLink(link)
        self._request = encode_request(account)
        self._replies = f"/BLEWIFI/users/{account.user_id}"
        self._gap_s = 1 / rate_s
        self._free_at = 0.0
        self._turn = asyncio.Lock()  # first come, first served
        self._heard: dict[str, FrameListener] = {}

    @property
    def connected(self) -> bool:
        return self._link.connected

    @contextmanager
    def listening(self, device: ChargerConfig, heard: FrameListener) -> Iterator[None]:
        """Have `heard` called with every valid frame of a charger, asked for or not. It must not block."""
        self._heard[device.device_id] = heard
        try:
            yield
        finally:
            del self._heard[device.device_id]

    async def run(self) -> None:
        """Stay connected until cancelled. Only our own replies are ever subscribed to."""
        await self._link.subscribe(self._replies, self._on_message)
        await self._link.run()

    async def ready(self, patience_s: float) -> None:
        """Wait for the connection, and for one's turn to bother the broker. Raises NotAsked."""
        try:
            async with asyncio.timeout(patience_s):
                await self._link.wait_connected()
        except TimeoutError:
            raise RequestNotSent(self._link.last_error or "no connection") from None
        async with self._turn:
            await asyncio.sleep(self._free_at - time.monotonic())
            self._free_at = time.monotonic() + self._gap_s

    async def ask(self, device: ChargerConfig) -> None:
        """Ask for a charger's WorkingInfo; the answer comes to its listener, or not. Raises NotAsked."""
        message = MqttMessage(topic=f"/BLEWIFI/Chargers/{device.address}", body=self._request)
        try:
            await self._link.publish(message)
        except (BrokerDisconnected, PublishRefused) as error:
            _REQUESTS.labels("not_sent").inc()
            raise RequestNotSent(str(error)) from None
        _REQUESTS.labels("sent").inc()

    def _on_message(self, message: MqttMessage) -> None:
        _REPLIES.labels(self._sort(message)).inc()

    def _sort(self, message: MqttMessage) -> str:
        if message.retain:
            return "retained"
        try:
            info = decode(message.body)
        except UnsupportedFrame:
            return "other_type"
        except MalformedFrame as error:
            log.debug("ev-meter frame not understood", error=str(error), size=len(message.body))
            return "invalid"
        heard = self._heard.get(info.device_id)
        if heard is None:
            return "other_charger"
        heard(info)
        return "taken"
