"""The database and the broker: those that the settings name, or embedded ones from wheels.

Entered on the main thread before the event loop runs: an embedded server dies with the thread that started it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from csms.mqtt.config import BrokerAddress
from csms.run.data_dir import data_dir
from csms.settings import Settings


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """Yield the database's address; an embedded database runs for as long as this context."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    from csms.embedded import EmbeddedPostgres

    with EmbeddedPostgres(data_dir(settings.csms_data_dir)) as server:
        yield server.url


@contextmanager
def broker(settings: Settings) -> Iterator[BrokerAddress | None]:
    """Yield the broker's address, None when MQTT is switched off; an embedded broker runs for as long as this context."""
    if not settings.mqtt:
        yield None
        return
    if not settings.embedded_broker:
        port = settings.mqtt_port or (8883 if settings.mqtt_tls else 1883)
        scheme = "mqtts" if settings.mqtt_tls else "mqtt"
        url = f"{scheme}://{settings.mqtt_host}:{port}"
        yield BrokerAddress(settings.mqtt_host, port, settings.mqtt_protocol_version, url)
        return
    from csms.embedded import EmbeddedBroker

    listen = settings.csms_embedded_broker_host
    directory = data_dir(settings.csms_data_dir)
    with EmbeddedBroker(directory, listen=listen, port=settings.mqtt_port or 1883) as server:
        five = settings.mqtt_protocol_version == "5"
        yield BrokerAddress(
            server.host,
            server.port_v5 if five else server.port,
            settings.mqtt_protocol_version,
            f"mqtt://{server.host}:{server.port} (MQTT 5: {server.port_v5})",
        )
