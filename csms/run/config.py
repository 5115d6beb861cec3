"""From settings to the plain values that the parts of a node are built with."""

from pathlib import Path
from zoneinfo import ZoneInfo

from csms.core.tariffs import Tariff
from csms.core.work import Policy
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.config import BrokerAddress, RelayConfig
from csms.mqtt.messages import EventFormat
from csms.plans.sources import PriceInput
from csms.scheduling.feeds import Markup
from csms.settings import Settings, secret_of


def policy(settings: Settings) -> Policy:
    return Policy(
        enrollment=settings.csms_enrollment,
        unknown_tags=settings.csms_unknown_tags,
        heartbeat_interval_s=settings.csms_heartbeat_interval_s,
        events=settings.mqtt_business_events_enabled,
        connection_events=settings.mqtt_connection_events_enabled,
        error_events=settings.mqtt_error_events_enabled,
        tariff=Tariff(
            currency=settings.csms_currency,
            energy_rate=settings.csms_energy_rate,
            time_rate=settings.csms_time_rate,
        ),
        time_zone=settings.csms_time_zone,
        max_power_w=settings.csms_max_power_w,
        hold_implausible=settings.csms_hold_implausible,
    )


def link_config(settings: Settings, broker: BrokerAddress, *, name: str = "main") -> LinkConfig:
    return LinkConfig(
        host=broker.host,
        port=broker.port,
        version=broker.version,
        client_id=settings.mqtt_client_id,
        node=settings.csms_node,
        name=name,
        username=settings.mqtt_username,
        password=secret_of("MQTT_PASSWORD_FILE", settings.mqtt_password, settings.mqtt_password_file),
        tls=settings.mqtt_tls,
        tls_ca_file=_text(settings.mqtt_tls_ca_file),
        tls_cert_file=_text(settings.mqtt_tls_cert_file),
        tls_key_file=_text(settings.mqtt_tls_key_file),
        tls_insecure=settings.mqtt_tls_insecure,
        keepalive_s=settings.mqtt_keepalive_s,
        connect_timeout_s=settings.mqtt_connect_timeout_s,
        publish_timeout_s=settings.mqtt_publish_timeout_s,
        reconnect_min_s=settings.mqtt_reconnect_min_s,
        reconnect_max_s=settings.mqtt_reconnect_max_s,
        max_inflight=settings.mqtt_max_inflight,
    )


def price_input(settings: Settings) -> PriceInput:
    return PriceInput(
        zone=ZoneInfo(settings.csms_time_zone),
        topic=settings.csms_prices_topic,
        url=secret_of("CSMS_PRICES_URL", settings.csms_prices_url, None),
        token=secret_of("CSMS_PRICES_TOKEN_FILE", None, settings.csms_prices_token_file),
        unit=settings.csms_prices_unit,
        area=settings.csms_prices_area,
        markup=Markup(factor=settings.csms_prices_factor, add=settings.csms_prices_add),
    )


def relay_config(settings: Settings) -> RelayConfig:
    return RelayConfig(
        form=EventFormat(
            prefix=settings.mqtt_topic_prefix,
            qos=settings.mqtt_qos,
            meter_qos=settings.mqtt_meter_qos,
            meter_expiry_s=settings.mqtt_meter_expiry_s,
            cloudevents=settings.mqtt_cloudevents,
        ),
        sessions=settings.outbox_lanes,
        batch=settings.outbox_batch,
        poll_s=settings.outbox_poll_ms / 1000,
        concurrency=settings.mqtt_concurrency,
        meter_min_interval_s=settings.mqtt_meter_min_interval_s,
        max_lag_s=settings.outbox_max_lag_alert_s,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
