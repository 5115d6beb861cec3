"""A node that only relays, in a process of its own that a test can kill; it never deletes."""

import asyncio
import os

from csms.db import outbox
from csms.db.engine import create_engine
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.config import RelayConfig
from csms.mqtt.messages import EventFormat
from csms.mqtt.relay import Relay


async def main() -> None:
    async def too_late(db: object, keys: object) -> None:
        await asyncio.sleep(60)

    outbox.delete = too_late
    link = PublishingLink(
        LinkConfig(host="127.0.0.1", port=int(os.environ["RELAY_PORT"]), node=f"victim-{os.getpid()}")
    )
    form = EventFormat(prefix=os.environ["RELAY_PREFIX"])
    relay = Relay(create_engine(os.environ["RELAY_DATABASE"]), link, RelayConfig(form=form, sessions=2))
    async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run())
        tasks.create_task(relay.run())


asyncio.run(main())
