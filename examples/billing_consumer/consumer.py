"""A billing consumer that loses no event and applies none twice, however often it, csms or the broker dies.

Three rules, each a class:

* Bills:    the effect of an event and the note that it was applied are one database transaction, so a second time is skipped.
* Replay:   csms itself fills a gap in `seq`, and returns events that the broker dropped without a visible gap.
* Consumer: a message is acknowledged to the broker after the commit, never before.

To adapt it, replace `Bills._book` (bills.py) and its tables.
"""

import argparse
import collections
import contextlib
import json
import os
import queue
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import paho.mqtt.client as mqtt
from bills import Bills, Outcome
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# All of them: `seq` counts every business event of a charger, so leaving topics out would look like gaps.
TOPICS = (
    "csms/transactions/+/+",
    "csms/connectors/+/+",
    "csms/billing/+/+",
    "csms/chargepoints/+/+",
    "csms/errors/+/+",
)
SESSION_KEPT_S = 7 * 86_400
_MQTT_5 = "5"


class Gone(Exception):
    """csms no longer keeps these events; the first that it keeps is `first_seq`."""

    def __init__(self, first_seq: int) -> None:
        super().__init__(f"events before seq {first_seq} are no longer kept")
        self.first_seq = first_seq


class Replay:
    """The replay over REST: the same bytes as over MQTT, and the last seq of each charger."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def after(self, client_id: str, seq: int) -> list[bytes]:
        """Return a charger's next events in order, none if there are none or the charger is unknown. Raise Gone."""
        answer = self._http.get(
            "/events",
            params={"clientId": client_id, "afterSeq": seq, "limit": 500},
            headers={"Accept": "application/x-ndjson"},
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        if answer.status_code == httpx.codes.GONE:
            problem = answer.json()
            raise Gone(problem["firstSeq"] or problem["lastSeq"] + 1)
        return [line for line in answer.raise_for_status().content.split(b"\n") if line]

    def positions(self) -> Iterator[tuple[int, str, int]]:
        """Yield (history epoch, clientId, last seq) of every charger."""
        params: dict[str, Any] = {"limit": 1000}
        while True:
            page = self._http.get("/events/positions", params=params).raise_for_status().json()
            yield from ((page["epoch"], item["clientId"], item["lastSeq"]) for item in page["items"])
            if page["nextCursor"] is None:
                return
            params["cursor"] = page["nextCursor"]

    def close(self) -> None:
        self._http.close()


class _Stopped(Exception):
    """The consumer stops in the middle of an event, which must not be acknowledged."""


class Consumer:
    """Apply MQTT messages one after the other and acknowledge each afterwards. `run()` lasts until `stop()`."""

    def __init__(
        self,
        bills: Bills,
        replay: Replay,
        *,
        broker: str = "mqtt://localhost:1883",
        version: str = _MQTT_5,
        client_id: str = "billing",
        prefix: str = "",
        ca_file: str | None = None,
        reconcile_s: float = 300,
        retry_s: float = 1,
    ) -> None:
        self.bills = bills
        self.replay = replay
        self.seen: collections.Counter[Outcome] = collections.Counter()
        self._topics = [(f"{prefix}/{topic}" if prefix else topic, 1) for topic in TOPICS]
        self._reconcile_s = reconcile_s
        self._retry_s = retry_s
        self._waiting: queue.SimpleQueue[tuple[int, mqtt.MQTTMessage] | None] = queue.SimpleQueue()
        self._connection = 0
        self._stopping = False
        self._reconcile_at = 0.0
        address = urlsplit(broker)
        self._host, self._port = (
            address.hostname or "localhost",
            address.port or (8883 if address.scheme == "mqtts" else 1883),
        )
        five = version == _MQTT_5
        # manual_ack: paho would acknowledge before this consumer has seen the message. A durable session (the fixed
        # identifier, clean_session=False or an expiry) makes the broker keep messages while the consumer is disconnected.
        self._mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            manual_ack=True,
            clean_session=None if five else False,
        )
        self._connect_options: dict[str, Any] = {}
        if five:
            kept = Properties(PacketTypes.CONNECT)
            kept.SessionExpiryInterval = SESSION_KEPT_S
            self._connect_options = {"clean_start": False, "properties": kept}
        if address.username:
            self._mqtt.username_pw_set(address.username, address.password)
        if address.scheme == "mqtts":
            self._mqtt.tls_set(ca_certs=ca_file)
        self._mqtt.on_connect = self._on_connect
        self._mqtt.on_subscribe = self._on_subscribe
        self._mqtt.on_message = self._on_message

    # --- callbacks in paho's thread: they only take note ------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            print(f"the broker refuses us: {reason}", file=sys.stderr)
            return
        self._connection += 1
        client.subscribe(self._topics)

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        for (topic, _), reason in zip(self._topics, reasons, strict=False):
            if reason.is_failure:
                print(f"the broker refuses {topic}: {reason}", file=sys.stderr)
        self._reconcile_at = 0.0  # new events arrive from here on; earlier ones are fetched
        self._waiting.put(None)

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._waiting.put((self._connection, message))

    # --- the consumer's own thread ----------------------------------------------------------------------

    def run(self) -> None:
        """Consume until `stop()`. Work that this process does not finish is done by the next one."""
        self._mqtt.connect_async(self._host, self._port, keepalive=60, **self._connect_options)
        self._mqtt.loop_start()
        try:
            self._consume()
        except _Stopped:
            pass
        finally:
            self._mqtt.disconnect()
            self._mqtt.loop_stop()

    def _consume(self) -> None:
        while not self._stopping:
            if self._connection and time.monotonic() >= self._reconcile_at:
                self._again_and_again(self.reconcile)
                self._reconcile_at = time.monotonic() + self._reconcile_s
            try:
                waiting = self._waiting.get(timeout=min(self._reconcile_s, 1))
            except queue.Empty:
                continue
            if waiting is not None and not self._stopping:
                connection, message = waiting
                self._again_and_again(self.take, message.payload)
                self.acknowledge(connection, message)

    def stop(self) -> None:
        self._stopping = True
        self._waiting.put(None)

    def take(self, body: bytes) -> None:
        """Apply one event, and the missing events before it."""
        try:
            outcome = self.bills.apply(body)
        except (ValueError, KeyError, TypeError) as error:
            print(f"not an event ({error!r}): {body[:200]!r}", file=sys.stderr)
            return
        self.seen[outcome] += 1
        if outcome not in {Outcome.GAP, Outcome.ANEW, Outcome.RESTORED}:
            return
        event = json.loads(body)
        if outcome is Outcome.RESTORED and self.bills.restored(event["historyEpoch"]):
            self._reconcile_at = 0.0  # the other chargers
        if outcome is Outcome.ANEW:
            self.bills.restart(event["clientId"])
        self.catch_up(event["clientId"])
        if self.bills.apply(body) is Outcome.GAP:
            self.bills.skip(event["clientId"], event["seq"] - 1)
            self.bills.apply(body)

    def catch_up(self, client_id: str) -> None:
        """Apply all later events that csms has of this charger, in order."""
        while True:
            try:
                bodies = self.replay.after(client_id, self.bills.position(client_id))
            except Gone as gone:
                print(f"{client_id}: {gone}", file=sys.stderr)
                self.bills.skip(client_id, gone.first_seq - 1)
                continue
            if not bodies:
                return
            for body in bodies:
                outcome = self.bills.apply(body, replayed=True)
                if outcome is Outcome.RESTORED:
                    self.bills.restored(json.loads(body)["historyEpoch"])
                    self._reconcile_at = 0.0
                    break
                if outcome is Outcome.GAP:
                    self.bills.skip(client_id, json.loads(body)["seq"] - 1)
                    self.bills.apply(body, replayed=True)

    def reconcile(self) -> None:
        """Find events that were dropped without a later event, which no gap shows."""
        for epoch, client_id, last in list(self.replay.positions()):
            if self.bills.restored(epoch):
                print(f"csms was restored from a backup: history epoch {epoch}", file=sys.stderr)
            applied = self.bills.position(client_id)
            if last < applied:
                self.bills.restart(client_id)
            if last != applied:
                self.catch_up(client_id)

    def acknowledge(self, connection: int, message: mqtt.MQTTMessage) -> None:
        """Acknowledge, unless the connection is a newer one: there the message comes again under another number."""
        if connection == self._connection:
            self._mqtt.ack(message.mid, message.qos)

    def _again_and_again(self, work: Any, *given: Any) -> None:
        """Wait until csms answers: an event whose predecessors are missing is neither applied nor acknowledged."""
        while not self._stopping:
            try:
                return work(*given)
            except httpx.HTTPError as error:
                print(f"csms does not answer the replay: {error}", file=sys.stderr)
                time.sleep(self._retry_s)
        raise _Stopped


def main() -> None:
    env = os.environ.get
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mqtt", default=env("MQTT_URL", "mqtt://localhost:1883"), help="mqtt[s]://user:password@host:port"
    )
    parser.add_argument("--mqtt-version", choices=["5", "3.1.1"], default="5")
    parser.add_argument("--ca-file", help="who signed the broker's certificate (mqtts)")
    parser.add_argument("--prefix", default="", help="the installation's MQTT_TOPIC_PREFIX")
    parser.add_argument(
        "--client-id", default="billing", help="one consumer each; it names the durable session"
    )
    parser.add_argument(
        "--csms", default=env("CSMS_URL", "http://127.0.0.1:8080"), help="where its REST API is"
    )
    parser.add_argument(
        "--token", default=env("CSMS_TOKEN", ""), help="a viewer's (csms tokens add); or CSMS_TOKEN"
    )
    parser.add_argument("--database", default="bills.sqlite")
    chosen = parser.parse_args()
    consumer = Consumer(
        _Talking(chosen.database),
        Replay(chosen.csms, chosen.token),
        broker=chosen.mqtt,
        version=chosen.mqtt_version,
        client_id=chosen.client_id,
        prefix=chosen.prefix,
        ca_file=chosen.ca_file,
    )
    with contextlib.suppress(KeyboardInterrupt):
        consumer.run()


class _Talking(Bills):
    """Bills that print new amounts and events that were not applied."""

    def apply(self, body: bytes, *, replayed: bool = False) -> Outcome:
        outcome, event = super().apply(body, replayed=replayed), json.loads(body)
        if outcome is Outcome.APPLIED and event["eventType"] == "session_cost":
            cost = event["payload"]
            print(
                f"{event['clientId']} transaction {cost['transactionId']}: {cost['amountMinor']} minor units of"
                f" {cost['currency']}, revision {cost['revision']}{', void' if cost.get('void') else ''}",
                flush=True,
            )
        elif outcome is Outcome.APPLIED and event["eventType"] == "cost_held":
            cost = event["payload"]
            print(
                f"{event['clientId']} transaction {cost['transactionId']}: not billed, held in csms because of"
                f" {', '.join(cost['heldBecause'])}",
                flush=True,
            )
        elif outcome is not Outcome.APPLIED:
            print(f"{event['clientId']} seq {event['seq']}: {outcome.value}", flush=True)
        return outcome


if __name__ == "__main__":
    main()
