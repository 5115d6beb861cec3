"""A vendor's backend with simulated chargers on a real broker, and bridges that watch them, ten minutes a second."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from bridges.ev_meter.adapter import EvMeterAdapter
from bridges.ev_meter.config import EvMeterConfig, PollIntervals, charger_config
from bridges.ev_meter.frame import VendorAccount
from bridges.ev_meter.open_session import SessionRules
from bridges.ev_meter.vendor_broker import broker_link
from csms.mqtt.client.config import LinkConfig
from csms.simulate.clock import UNBOUNDED_LEAD_S, SimulatedClock
from csms.simulate.ev_meter import FakeBackend, FakeCharger, FakeChargerState
from tests.harness.waiting import until
from tests.mqtt.conftest import running

SSID = "Nextdoor WLAN"
SERIAL, PEER = 3_987_654_321, 3_876_543_219
_numbers = itertools.count(1)


class EvMeterSite:
    """`bridge()` makes an adapter for its chargers; any number of them, one after the other."""

    def __init__(self, broker: Any, count: int = 1, *, login: dict[str, Any] | None = None) -> None:
        # Other tests use the same broker and the vendor's topics are what they are.
        own = f"{secrets.randbits(16):04X}{next(_numbers):04X}"
        self.uuid = f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}"
        self.token = secrets.token_bytes(48)
        self.clock = SimulatedClock(600, UNBOUNDED_LEAD_S)
        self.chargers = [
            FakeCharger(FakeChargerState(mac=f"{own}{number:04X}", ssid=SSID, serial=SERIAL, peer=PEER))
            for number in range(1, count + 1)
        ]
        self.names = [f"EV-{own[:4]}-{number}" for number in range(1, count + 1)]
        self.broker, self.login = broker, login or {}
        self.backend = FakeBackend(
            broker.host, broker.port, self.chargers, uuid=self.uuid, token=self.token, **self.login
        )

    @property
    def charger(self) -> FakeCharger:
        return self.chargers[0]

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def account(self) -> VendorAccount:
        return VendorAccount(self.uuid, self.token)

    def link(self, **changes: Any) -> LinkConfig:
        link = broker_link(self.broker.host, self.broker.port, **self.login)
        return replace(link, **({"reconnect_min_s": 0.05, "reconnect_max_s": 0.2} | changes))

    def bridge(
        self, *, link: LinkConfig | None = None, pace: dict[str, Any] | None = None, **chosen: Any
    ) -> EvMeterAdapter:
        config = EvMeterConfig(
            account=self.account,
            chargers=tuple(
                charger_config(name, charger.state.mac, id_tag="TAG")
                for name, charger in zip(self.names, self.chargers, strict=True)
            ),
            rules=SessionRules(**chosen),
            intervals=PollIntervals(
                **(
                    {
                        "idle_s": 0.12,
                        "charging_s": 0.12,
                        "offline_s": 0.2,
                        "reply_s": 0.3,
                        "requests_per_s": 1000,
                    }
                    | (pace or {})
                )
            ),
        )
        return EvMeterAdapter(config, link or self.link(), clock=lambda: self.clock.at(self.clock.now_s()))

    def asked(self) -> int:
        return sum(len(charger.asked.times) for charger in self.chargers)


@contextlib.asynccontextmanager
async def at_work(site: EvMeterSite) -> AsyncIterator[EvMeterSite]:
    """The backend answers for as long as this context."""
    async with running(site.backend.run()):
        async with asyncio.timeout(10):
            await site.backend.connected.wait()
        yield site


async def polled(site: EvMeterSite, times: int = 2) -> None:
    """Until every charger has been asked so often again."""
    before = [len(charger.asked.times) for charger in site.chargers]
    await until(
        lambda: all(
            len(charger.asked.times) >= count + times
            for charger, count in zip(site.chargers, before, strict=True)
        )
    )
