"""A consumer in a process of its own: counts what the broker delivers. `python -m benchmarks.subscriber HOST PORT TOPIC …`

MQTT 3.1.1 by hand, QoS 1, so that it costs the machine little (some 4 µs a message). A line on stdin is answered
with the counts as JSON; `times FILE` first writes when each meter reading came.
"""

import asyncio
import json
import sys
import time

import msgspec


class Consumer(asyncio.Protocol):
    def __init__(self, topics: list[str]) -> None:
        self.topics = topics
        self.buffer = b""
        self.count = self.bytes = 0
        self.kinds: dict[bytes, int] = {}
        self.came: list[tuple[int, int, float]] = []
        self.noting = False
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        name = f"bench-{time.time_ns()}".encode()
        body = b"\0\x04MQTT\x04\x02\0\0" + len(name).to_bytes(2, "big") + name
        wanted = b"\0\x01" + b"".join(len(t).to_bytes(2, "big") + t.encode() + b"\x01" for t in self.topics)
        transport.write(_packet(0x10, body))  # type: ignore[attr-defined]
        transport.write(_packet(0x82, wanted))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        data = self.buffer + data if self.buffer else data
        at, end, acks = 0, len(data), bytearray()
        while end - at >= 2:
            size, shift, head = 0, 0, 1
            while at + head < end:
                byte = data[at + head]
                size |= (byte & 0x7F) << shift
                shift += 7
                head += 1
                if byte < 0x80:
                    break
            else:
                break
            if at + head + size > end:
                break
            self._packet_came(data, at, at + head, size, acks, now)
            at += head + size
        self.buffer = data[at:]
        if acks:
            self.transport.write(acks)  # type: ignore[attr-defined]

    def _packet_came(self, data: bytes, at: int, body: int, size: int, acks: bytearray, now: float) -> None:
        kind = data[at] >> 4
        if kind == 9:
            self.ready.set_result(None)
        if kind != 3:
            return
        self.count += 1
        self.bytes += size
        end = body + size
        topic_end = body + 2 + int.from_bytes(data[body : body + 2], "big")
        qos = data[at] >> 1 & 3
        if qos:
            acks += b"\x40\x02" + data[topic_end : topic_end + 2]
        name = data[data.rfind(b"/", body, topic_end) + 1 : topic_end]
        self.kinds[name] = self.kinds.get(name, 0) + 1
        if self.noting and name == b"meter_reading":
            # `"totalEnergy":1.007`: the register that the load has sent, in kWh.
            where = data.find(b'"totalEnergy":', topic_end, end) + 14
            register = round(float(data[where : _number_end(data, where)]) * 1000)
            charger = data[data.rfind(b"-", body, topic_end - len(name)) + 1 : topic_end - len(name) - 1]
            self.came.append((int(charger), register, now))


def _number_end(data: bytes, at: int) -> int:
    while data[at] in b"0123456789.":
        at += 1
    return at


def _packet(kind: int, body: bytes) -> bytes:
    size, left = bytearray(), len(body)
    while True:
        left, byte = left >> 7, left & 0x7F
        size.append(byte | (0x80 if left else 0))
        if not left:
            return bytes([kind]) + bytes(size) + body


async def main(host: str, port: int, topics: list[str]) -> None:
    loop = asyncio.get_running_loop()
    _, consumer = await loop.create_connection(lambda: Consumer(topics), host, port)
    await consumer.ready
    print(json.dumps({"phase": "ready"}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = line.split()
        if words and words[0] == "note":
            consumer.noting = True
        elif words and words[0] == "times":
            with open(words[1], "wb") as file:  # noqa: ASYNC230, PTH123
                file.write(msgspec.msgpack.encode(consumer.came))
        kinds = {name.decode(): n for name, n in consumer.kinds.items()}
        print(json.dumps({"count": consumer.count, "bytes": consumer.bytes, "kinds": kinds}), flush=True)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
    else:
        uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
