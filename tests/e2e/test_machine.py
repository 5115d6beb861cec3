"""A charge point that does anything in any order, on a real socket of a node that restarts at any moment."""

import itertools
import os
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.harness.node_thread import Driver, driving

connectors = st.integers(1, 2)
registers = st.integers(0, 9000)
TRANSACTIONS = "SELECT * FROM transactions WHERE charger_id = $1 ORDER BY id"
EVENTS = "SELECT seq, event_type, transaction_id, convert_from(body, 'UTF8')::jsonb->'payload'->>'revision' AS revision FROM events WHERE charger_id = $1 ORDER BY seq"


class Anything(RuleBasedStateMachine):
    """`sent` holds every resendable call with the answer it got."""

    driver: ClassVar[Driver]

    @initialize()
    def connects(self) -> None:
        self.charger = f"CP-{secrets.token_hex(6)}"
        self.ids = itertools.count(1)
        self.seconds = 0
        self.sent: list[tuple[str, str, dict[str, Any], Any]] = []
        self.point = self.driver.do(self.driver.dial(self.charger))

    def clock(self) -> str:
        self.seconds += 1
        moment = datetime(2023, 12, 7, 10, tzinfo=UTC) + timedelta(seconds=self.seconds)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def say(self, action: str, payload: dict[str, Any]) -> Any:
        message_id = f"m{next(self.ids)}"
        answer = self.driver.do(self.point.ask(action, payload, message_id))
        self.sent.append((message_id, action, payload, answer))
        return answer

    def some_id(self, which: int) -> int:
        ids = [answer["transactionId"] for _, _, _, answer in self.sent if answer]
        return ids[which % len(ids)] if ids else which - 2

    # --- what it does --------------------------------------------------------------------------------

    @rule(connector=connectors, register=registers)
    def starts(self, connector: int, register: int) -> None:
        payload = {"connectorId": connector, "idTag": "t", "meterStart": register, "timestamp": self.clock()}
        assert self.say("StartTransaction", payload)["idTagInfo"]["status"] == "Accepted"

    @rule(which=st.integers(0, 9), register=registers)
    def stops(self, which: int, register: int) -> None:
        payload = {"transactionId": self.some_id(which), "meterStop": register, "timestamp": self.clock()}
        assert self.say("StopTransaction", payload) == {}

    @rule(connector=st.integers(0, 2), which=st.integers(0, 9), register=registers)
    def measures(self, connector: int, which: int, register: int) -> None:
        values = [{"timestamp": self.clock(), "sampledValue": [{"value": str(register)}]}]
        payload = {"connectorId": connector, "transactionId": self.some_id(which), "meterValue": values}
        assert self.say("MeterValues", payload) == {}

    @rule(connector=connectors, status=st.sampled_from(["Available", "Charging", "Faulted"]))
    def tells(self, connector: int, status: str) -> None:
        payload = {
            "connectorId": connector,
            "errorCode": "NoError",
            "status": status,
            "timestamp": self.clock(),
        }
        assert self.driver.do(self.point.ask("StatusNotification", payload, f"m{next(self.ids)}")) == {}

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 99), same_id=st.booleans())
    def repeats(self, which: int, same_id: bool) -> None:
        message_id, action, payload, answer = self.sent[which % len(self.sent)]
        before = self.kept()
        again = message_id if same_id else f"m{next(self.ids)}"
        assert self.driver.do(self.point.ask(action, payload, again)) == answer
        assert self.kept() == before

    @rule()
    def reconnects(self) -> None:
        self.point = self.driver.do(self.driver.dial(self.charger))

    @rule(chance=st.integers(0, 3))
    def node_restarts(self, chance: int) -> None:
        if chance == 0:
            self.driver.restart()
            self.reconnects()

    @rule(chance=st.integers(0, 3), connector=connectors, register=registers)
    def node_restarts_before_it_has_answered(self, chance: int, connector: int, register: int) -> None:
        payload = {"connectorId": connector, "idTag": "t", "meterStart": register, "timestamp": self.clock()}
        self.driver.do(self.point.send([2, f"m{next(self.ids)}", "StartTransaction", payload]))
        if chance == 0:
            self.driver.restart()
        self.reconnects()
        self.say("StartTransaction", payload)

    # --- what always holds -----------------------------------------------------------------------------

    def kept(self) -> tuple[Any, ...]:
        counts = [
            self.driver.fetch(f"SELECT count(*) FROM {table} WHERE charger_id = $1", self.charger)
            for table in ("readings", "quarantine")
        ]
        return self.driver.fetch(TRANSACTIONS, self.charger), self.driver.fetch(EVENTS, self.charger), counts

    @invariant()
    def books_are_right(self) -> None:
        rows, events, _ = self.kept()
        running = Counter(row["connector_id"] for row in rows if row["stopped_at"] is None)
        assert all(count == 1 for count in running.values())
        assert all(row["energy_wh"] >= 0 for row in rows if row["stopped_at"] is not None)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        told = Counter((e["event_type"], e["transaction_id"], e["revision"]) for e in events)
        for row in rows:
            assert told["started", row["id"], None] == 1
            ended = int(row["stopped_at"] is not None)
            assert told["completed", row["id"], "1"] == ended
            assert told["session_cost", row["id"], "1"] == ended
            for revision in range(2, row["revision"] + 1):
                assert told["updated", row["id"], str(revision)] == 1
                assert told["session_cost", row["id"], str(revision)] == 1
            assert told["session_cost", row["id"], str(row["revision"] + 1)] == 0

    def teardown(self) -> None:
        if hasattr(self, "point"):
            self.driver.do(self.point.close())


@pytest.mark.timeout(180)
def test_anything_in_any_order(database_url: str, tmp_path: Path) -> None:
    with driving(database_url, tmp_path) as driver:
        Anything.driver = driver
        run_state_machine_as_test(
            Anything,
            settings=settings(
                max_examples=int(os.environ.get("CSMS_MACHINE_EXAMPLES", "10")),
                stateful_step_count=15,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
