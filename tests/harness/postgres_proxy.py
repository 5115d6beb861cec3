"""What may lie between a client and Postgres."""

import asyncio
import contextlib
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Passes bytes between a client and Postgres until it is told to go silent, without closing anything.

    `refusal`: instead of accepting a connection, say this, as a server does that recovers from a crash.
    """

    refusal = b""
    refused = 0

    def __init__(self, host, port):
        self.target = host, port
        self.silent = asyncio.Event()
        self.generation = 0
        self.tasks = set()
        self.server = None

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def forget(self):
        """As a firewall does: who is connected hears of it when he next says something."""
        self.generation += 1

    async def _serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        if self.refusal:
            self.refused += 1
            await self._refuse(reader, writer)
            return
        writers = [writer]
        try:
            back, forth = await asyncio.open_connection(*self.target)
            writers.append(forth)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, forth, self.generation))
                group.create_task(self._pass(back, writer))
        except* OSError:
            pass
        finally:
            for one in writers:
                one.close()

    async def _refuse(self, reader, writer):
        if (await reader.read(65536))[4:8] == (80877103).to_bytes(4):  # may it be TLS?
            writer.write(b"N")
            await reader.read(65536)
        writer.write(b"E" + (len(self.refusal) + 4).to_bytes(4) + self.refusal)
        await writer.drain()
        writer.close()

    async def _pass(self, reader, writer, generation=None):
        while data := await reader.read(65536):
            if generation is not None and generation != self.generation:
                raise ConnectionResetError
            if self.silent.is_set():
                continue
            writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def through_a_proxy(database_url):
    address = urlsplit(database_url)
    async with Proxy(address.hostname, address.port) as proxy:
        login = address.netloc.rpartition("@")[0]
        yield proxy, urlunsplit(address._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))
