"""Whether a connection is alive. Any frame is a sign of life, not only a pong: some charge points never answer pings."""

import asyncio
from typing import Literal

from msgspec import Struct
from websockets.exceptions import ConnectionClosed

from csms.ocpp.connection import ChargePointConnection


class Liveness(Struct, frozen=True):
    """`ping_interval_s` 0: no pings. `silence_s` 0: never closed for silence alone."""

    ping_interval_s: float = 60
    silence_s: float = 900

    def judge(self, *, quiet_s: float, answers_pings: bool) -> Literal["alive", "quiet", "dead"]:
        """A connection that has answered pings is dead after two unanswered ones, any other after `silence_s`."""
        limit_s = self.silence_s
        if answers_pings and self.ping_interval_s:
            soon_s = self.ping_interval_s * 2.2
            limit_s = min(limit_s, soon_s) if limit_s else soon_s
        if limit_s and quiet_s > limit_s:
            return "dead"
        return "quiet" if self.ping_interval_s and quiet_s > self.ping_interval_s else "alive"


async def ping(connection: ChargePointConnection, timeout_s: float) -> None:
    """Send a ping and wait for its pong, at most `timeout_s` seconds."""
    connection.pinging = True
    try:
        pong = await connection.socket.ping()
        async with asyncio.timeout(timeout_s):
            await pong
        connection.answered_ping = True
    except (TimeoutError, ConnectionClosed):
        pass
    finally:
        connection.pinging = False
