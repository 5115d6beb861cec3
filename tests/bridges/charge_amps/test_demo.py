"""What `csms demo` shows of this bridge, and how it is made from settings."""

import asyncio
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import bridges
from bridges.charge_amps import demo, settings
from bridges.charge_amps.eapi import EapiCloud
from bridges.charge_amps.web_api import WebApiCloud
from csms.errors import SettingsError
from csms.mqtt.config import BrokerAddress
from csms.scheduling.feeds import read_feed
from csms.simulate.clock import UNBOUNDED_LEAD_S, SimulatedClock
from tests.e2e.conftest import NodeFactory


async def test_demo_charges_by_price(
    start_node: NodeFactory, broker: Any, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low / 10)
    address = BrokerAddress(broker.host, broker.port_v5, "5", "mqtt://test")
    clock = SimulatedClock(60, UNBOUNDED_LEAD_S)
    adapter, simulated = demo.create_demo(address, clock, price_topic=f"test-demo/{topic_prefix}")
    playing = asyncio.create_task(simulated)
    try:
        node = await start_node(bridges=[adapter])
        await node.until(lambda: node.of("started", "CA-GARAGE"), timeout_s=20)
        connectors = adapter.connectors  # type: ignore[attr-defined]
        await node.until(lambda: connectors["CA-GARAGE", 1].sync.state.source == "standalone", timeout_s=20)
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)


def test_the_demo_publishes_prices_of_two_days_in_quarter_hours() -> None:
    now = datetime(2026, 11, 21, 11, tzinfo=UTC)
    feed = read_feed(json.dumps(demo.prices(now)).encode(), zone=ZoneInfo("Europe/Amsterdam"))
    assert (len(feed.slots), feed.skipped) == (192, 0)


# --- settings ----------------------------------------------------------------------------------------

GIVEN = {"email": "driver@example.org", "password": "correct horse", "timezone": "Europe/Amsterdam"}


def load(**changes: Any) -> settings.ChargeAmpsSettings:
    return settings.load(_env_file=None, **{**GIVEN, **changes})


def test_the_defaults_are_those_of_the_specification() -> None:
    config = settings.config(load())
    assert (config.mode, config.price_threshold, config.top_x) == ("standalone", Decimal("0.25"), 16)
    assert (config.connectors, config.current_a, config.automation) == ((1,), 16, True)
    assert config.price_topic == "energy_prices/sensor/price_import/attributes"
    assert not config.take_over


def test_a_threshold_can_be_off_and_negative() -> None:
    assert settings.config(load(price_threshold="off")).price_threshold is None
    assert settings.config(load(price_threshold="-0.01")).price_threshold == Decimal("-0.01")


def test_settings_are_read_from_prefixed_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**GIVEN, "operation_mode": "hems", "connector_ids": "1,2"}.items():
        monkeypatch.setenv(f"CHARGE_AMPS_{name.upper()}", value)
    config = settings.config(settings.load(_env_file=None))
    assert (config.mode, config.connectors) == ("hems", (1, 2))
    assert type(bridges.create("charge_amps")).__name__ == "ChargeAmpsAdapter"


async def test_the_apis_in_use_follow_from_the_credentials(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    made = [
        settings.clouds(load()),
        settings.clouds(load(api_key_file=key)),
        settings.clouds(load(api_key="k", web=False)),
    ]
    assert [(type(cloud), type(schedules)) for cloud, schedules in made] == [
        (WebApiCloud, WebApiCloud),
        (EapiCloud, WebApiCloud),
        (EapiCloud, NoneType),
    ]
    for cloud in {cloud for pair in made for cloud in pair if cloud is not None}:
        await cloud.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"timezone": "Mars/Olympus"}, "CHARGE_AMPS_TIMEZONE='Mars/Olympus'"),
        ({"web_url": "http://my.charge.space/api"}, "https://"),
        ({"operation_mode": "manual"}, "CHARGE_AMPS_OPERATION_MODE='manual'"),
        ({"max_current_per_phase": 5}, "CHARGE_AMPS_MAX_CURRENT_PER_PHASE"),
        ({"rfid": "XYZ"}, "8 to 20 hexadecimal digits"),
        ({"connector_ids": "one"}, "CHARGE_AMPS_CONNECTOR_IDS"),
        ({"password": None}, "CHARGE_AMPS_PASSWORD"),
        ({"web": False}, "CHARGE_AMPS_WEB"),
        ({"password_file": Path("/nowhere")}, "CHARGE_AMPS_PASSWORD_FILE=/nowhere"),
    ],
)
def test_an_unusable_setting_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        chosen = load(**changes)
        settings.config(chosen)
        settings.clouds(chosen)
    assert named in str(refused.value)
    assert "correct horse" not in str(refused.value)


def test_an_rfid_is_read_in_either_case() -> None:
    assert load(rfid="04a1b2c3").rfid == load(rfid="04A1B2C3").rfid == "04A1B2C3"


def test_a_missing_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARGE_AMPS_EMAIL", raising=False)
    with pytest.raises(SettingsError, match="CHARGE_AMPS_EMAIL="):
        settings.load(_env_file=None)
