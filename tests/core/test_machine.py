"""A state machine of chargers that report in any order, repeat and reconnect, with batches of any size."""

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from csms.core import reports
from tests.harness.fake_store import NOW, FakeStore, meter, register, start, status, stop

CHARGERS = ("a", "b")
chargers = st.sampled_from(CHARGERS)
connectors = st.integers(1, 2)
registers = st.integers(0, 5000)
impossible_ids = st.sampled_from([None, 0, -1, 2**31, 2**63 - 1, 999_999])
words = st.sampled_from(["Available", "Preparing", "Charging", "Finishing", "Faulted"])


class Charging(RuleBasedStateMachine):
    """Reports wait in `pending` until a rule has them decided as one batch."""

    @initialize(limit=st.sampled_from([None, 1]), late_s=st.integers(-7200, 7200))
    def open_desk(self, limit: int | None, late_s: int) -> None:
        self.desk = FakeStore(unknown_tags="accept")
        if limit is not None:
            self.desk.with_tag("limited", max_active_transactions=limit)
        # The chargers' clock may differ from that of csms.
        self.off = timedelta(seconds=late_s)
        self.pending: list[reports.Report[Any]] = []
        self.answered: list[tuple[Any, Any]] = []
        self.messages = 0
        self.seconds = 0

    def clock(self) -> Any:
        """The charger's time now: it goes on by a second with each report."""
        self.seconds += 1
        self.desk.now = NOW + timedelta(seconds=self.seconds)
        return self.desk.now + self.off

    def say(self, report: Any) -> None:
        self.messages += 1
        if isinstance(report, reports.Resendable):
            digest = str(hash(repr(report))).encode()
            report = msgspec.structs.replace(report, message_id=str(self.messages), digest=digest)
        self.pending.append(report)

    def some_id(self, which: int) -> int | None:
        """The id of any transaction, of any charger, running or not."""
        ids = sorted(self.desk.transactions)
        return ids[which % len(ids)] if ids else None

    # --- what chargers do ----------------------------------------------------------------------------

    @rule(charger=chargers, connector=connectors, wh=registers, tag=st.sampled_from(["t", "limited", ""]))
    def starts(self, charger: str, connector: int, wh: int, tag: str) -> None:
        self.say(start(charger_id=charger, connector_id=connector, meter_wh=wh, id_tag=tag, at=self.clock()))

    @rule(charger=chargers, which=st.integers(0, 20), wh=st.none() | registers, data=st.booleans())
    def stops(self, charger: str, which: int, wh: int | None, data: bool) -> None:
        moment = self.clock()
        readings = [register(which * 10, moment)] if data else []
        self.say(stop(self.some_id(which), charger_id=charger, meter_wh=wh, at=moment, readings=readings))

    @rule(charger=chargers, lost=impossible_ids, wh=registers)
    def stops_with_a_lost_id(self, charger: str, lost: int | None, wh: int) -> None:
        self.say(stop(lost, charger_id=charger, meter_wh=wh, at=self.clock()))

    @rule(
        charger=chargers,
        connector=st.integers(0, 2),
        which=st.none() | st.integers(0, 20),
        wh=registers,
        late_s=st.sampled_from([0, 0, 0, 2, 30]),
    )
    def measures(self, charger: str, connector: int, which: int | None, wh: int, late_s: int) -> None:
        moment = self.clock() - timedelta(seconds=late_s)
        named = None if which is None else self.some_id(which)
        self.say(meter(named, register(wh, moment), charger_id=charger, connector_id=connector))

    @rule(charger=chargers, lost=impossible_ids, wh=registers)
    def measures_with_a_lost_id(self, charger: str, lost: int | None, wh: int) -> None:
        self.say(meter(lost, register(wh, self.clock()), charger_id=charger))

    @rule(charger=chargers, connector=st.integers(0, 2), word=words, timed=st.booleans())
    def says_how_it_is(self, charger: str, connector: int, word: str, timed: bool) -> None:
        moment = self.clock()
        self.say(status(word, moment if timed else None, charger_id=charger, connector_id=connector))

    @rule(charger=chargers, node=st.sampled_from(["n1", "n2"]))
    def reconnects(self, charger: str, node: str) -> None:
        self.say(reports.Connected(charger_id=charger, node=node))
        self.say(reports.Boot(charger_id=charger))

    @rule(charger=chargers, generation=st.integers(1, 4))
    def goes_away(self, charger: str, generation: int) -> None:
        self.say(reports.Disconnected(charger_id=charger, node="n1", generation=generation))

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 20), renamed=st.booleans())
    def repeats_what_is_not_answered_yet(self, which: int, renamed: bool) -> None:
        report = self.pending[which % len(self.pending)]
        if isinstance(report, reports.Start | reports.Stop | reports.Meter):
            self.pending.append(self.renamed(report) if renamed else report)

    # --- decisions -----------------------------------------------------------------------------------

    @rule()
    def decides(self) -> None:
        batch, self.pending = self.pending, []
        for report, answer in zip(batch, self.desk.batch(*batch), strict=True):
            assert not isinstance(answer, Exception), answer
            if isinstance(report, reports.Start | reports.Stop | reports.Meter):
                self.answered.append((report, answer))

    @precondition(lambda self: self.answered)
    @rule(which=st.integers(0, 50), renamed=st.booleans(), more=st.integers(0, 5))
    def repeats_change_nothing(self, which: int, renamed: bool, more: int) -> None:
        self.decides()
        repeated = [self.answered[(which + n) % len(self.answered)] for n in range(more + 1)]
        before = self.desk.snapshot()
        answers = self.desk.batch(*(self.renamed(r) if renamed else r for r, _ in repeated))
        assert self.desk.snapshot() == before
        for (report, first), answer in zip(repeated, answers, strict=True):
            if isinstance(report, reports.Start) or not renamed:
                assert answer == first
            elif isinstance(report, reports.Stop):
                assert answer.transaction_id == first.transaction_id

    def renamed(self, report: Any) -> Any:
        self.messages += 1
        return msgspec.structs.replace(report, message_id=f"again{self.messages}")

    # --- invariants (in addition to those that the desk checks) --------------------------------------

    @invariant()
    def energy_and_money_are_never_negative(self) -> None:
        for transaction in self.desk.transactions.values():
            assert (transaction.energy_wh or 0) >= 0
            assert (transaction.cost_minor or 0) >= 0
            assert (transaction.duration_s or 0) >= 0

    @invariant()
    def every_end_is_told_once_with_its_cost(self) -> None:
        published = Counter((event.event_type, event.transaction_id) for event in self.desk.events)
        costs = Counter(
            (payload["transactionId"], payload["revision"]) for payload in self.desk.payloads("session_cost")
        )
        for transaction in self.desk.transactions.values():
            ended = 0 if transaction.open else 1
            assert published["started", transaction.id] == 1
            assert published["completed", transaction.id] == ended
            assert published["updated", transaction.id] == max(transaction.revision - 1, 0)
            assert transaction.revision <= 2
            for revision in range(1, 4):
                assert costs[transaction.id, revision] == (1 if revision <= transaction.revision else 0)

    @invariant()
    def nobodys_reading_or_answer_is_lost(self) -> None:
        for report, answer in self.answered:
            if isinstance(report, reports.Stop) and answer.transaction_id is not None:
                transaction = self.desk.transactions[answer.transaction_id]
                assert not transaction.open
                assert transaction.charger_id == report.charger_id
            if isinstance(report, reports.Stop) and answer.transaction_id is None:
                assert any(
                    entry.charger_id == report.charger_id and entry.digest == report.digest
                    for entry in self.desk.quarantine
                )
            if isinstance(report, reports.Meter):
                assert any(
                    row.charger_id == report.charger_id and row.sampled_at == report.readings[0].at
                    for row in self.desk.readings
                )


TestCharging = Charging.TestCase
TestCharging.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
