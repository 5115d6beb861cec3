"""A story told to the pure core, and what became of its sessions."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from csms.core import reports
from csms.core.tariffs import Tariff
from csms.errors import NotBookable, WrongState
from tests.harness.adversary import course as courses
from tests.harness.adversary.course import Course, Told
from tests.harness.adversary.stories import MAX_W
from tests.harness.fake_store import CP, NOW, FakeStore, correction, meter, register, start, status, stop

PAYER = "payer"
TARIFF = Tariff(energy_rate=Decimal("0.12"))
BY_MINUTE = Tariff(energy_rate=Decimal("0.12"), time_rate=Decimal("0.01"))


class Bill(Struct, frozen=True, kw_only=True):
    """What a run has made of a session. `entries_minor`: what its account was debited, None if none pays."""

    number: int
    session: int
    open: bool
    billing: str | None
    held_because: tuple[str, ...]
    energy_wh: int
    source: str | None
    cost_minor: int
    seconds: Decimal
    anomalies: tuple[str, ...]
    revision: int
    entries_minor: int | None = None


class Desk:
    """The pure core with one charger. `sessions`: the session of each transaction, by its id."""

    def __init__(self, course: Course, *, events: bool = False, pays: bool = False) -> None:
        self.course = course
        self.tariff = BY_MINUTE if course.story.by_minute else TARIFF
        # Schemas of events are checked elsewhere, at ten times the time.
        self.store = FakeStore(unknown_tags="accept", tariff=self.tariff, events=events)
        self.store.clock_stands = True
        self.store.now = NOW
        self.store.tell(reports.Seen(charger_id=CP))
        charger = self.store.chargers[CP]
        self.store.chargers[CP] = msgspec.structs.replace(charger, max_power_w=MAX_W)
        self.pays = pays
        if pays:
            self.store.with_account(PAYER, 10**9)
        self.ids: dict[int, int] = {}
        self.sessions: dict[int, int] = {}

    def play(self, line: Sequence[Told]) -> "Desk":
        for one in line:
            self.hear(one)
        return self

    def hear(self, one: Told) -> None:
        self.store.now = NOW + timedelta(minutes=one.received_min)
        answer = self._TOLD[one.message.kind](self, one)
        if isinstance(answer, reports.Started):
            self.ids[one.message.session] = answer.transaction_id
            self.sessions.setdefault(answer.transaction_id, one.message.session)
        if isinstance(answer, Exception) and not isinstance(answer, NotBookable | WrongState):
            raise answer

    def end(self) -> "Desk":
        """All connectors are free for an hour, and csms ends what is left open."""
        last = self.course.messages[-1]
        self.store.now = max(self.store.now, NOW + timedelta(minutes=last.minute)) + timedelta(hours=1)
        for connector in (1, 2):
            self.store.tell(status("Available", last.at + timedelta(hours=1), connector_id=connector))
        self.infer()
        return self

    def infer(self) -> None:
        """As the reconciler: each open transaction that looks ended."""
        for t in [t for t in self.store.transactions.values() if t.open]:
            connector = self.store.connectors.get((CP, t.connector_id))
            self.store.tell(
                reports.Reconcile(
                    charger_id=CP,
                    transaction_id=t.id,
                    free_since=None if connector is None else connector.free_since,
                    booted_at=self.store.chargers[CP].booted_at,
                    reading_at=None if connector is None else connector.reading_at,
                )
            )

    def bills(self) -> list[Bill]:
        entries: dict[int | None, int] = {}
        for entry in self.store.entries:
            entries[entry.transaction_id] = entries.get(entry.transaction_id, 0) - entry.amount_minor
        return [
            Bill(
                number=t.id,
                session=self.sessions[t.id],
                open=t.open,
                billing=t.billing,
                held_because=t.held_because,
                energy_wh=-1 if t.energy_wh is None else t.energy_wh,
                source=t.energy_source,
                cost_minor=-1 if t.cost_minor is None else t.cost_minor,
                seconds=t.duration_s or Decimal(0),
                anomalies=t.anomalies,
                revision=t.revision,
                entries_minor=entries.get(t.id, 0) if self.pays else None,
            )
            for t in self.store.transactions.values()
        ]

    def running_wh(self, number: int) -> int:
        """The running figure of a transaction."""
        connector = self.store.connectors.get((CP, self.store.transactions[number].connector_id))
        return (None if connector is None else connector.session_wh(number)) or 0

    # --- messages as reports ----------------------------------------------------------------------------------

    def _named(self, one: Told) -> int | None:
        return self.ids.get(one.message.session, self.course.story.unknown_id)

    def _start(self, one: Told) -> Any:
        m = one.message
        given: dict[str, Any] = {"account_id": PAYER} if self.pays else {}
        if self.pays and m.connector == 2:
            given["terms"] = reports.RentalTerms(dynamic=True)
        given |= {
            "connector_id": m.connector,
            "id_tag": self._tag(one),
            "meter_wh": m.register_wh,
            "at": m.at,
        }
        return self._tell(start(**given, **self._ids(one)))

    def _reading(self, one: Told) -> Any:
        m = one.message
        if m.register_wh is None:
            return None
        return self._tell(meter(self._named(one), register(m.register_wh, m.at), connector_id=m.connector))

    def _stop(self, one: Told) -> Any:
        m = one.message
        readings = [] if m.reading_wh is None else [register(m.reading_wh, m.at)]
        return self._tell(
            stop(
                self._named(one),
                meter_wh=m.register_wh,
                at=m.at,
                id_tag=self._tag(one),
                readings=readings,
                **self._ids(one),
            )
        )

    def _status(self, one: Told) -> Any:
        return self._tell(status(one.message.word, one.message.at, connector_id=one.message.connector))

    def _boot(self, _one: Told) -> Any:
        return self._tell(reports.Boot(charger_id=CP))

    def _infer(self, _one: Told) -> None:
        self.infer()

    def _correct(self, one: Told) -> Any:
        number = self.ids.get(one.message.session)
        if number is None:
            return None
        given = {"energy_wh": 777} if one.message.word == "correct" else {}
        return self._tell(correction(number, kind=one.message.word, **given))

    def _tell(self, report: Any) -> Any:
        return self.store.tell(report)

    def _tag(self, one: Told) -> str:
        return f"driver{self.course.story.sessions[one.message.session].tag}"

    def _ids(self, one: Told) -> dict[str, Any]:
        return {"message_id": one.message_id, "digest": f"{one.number}:{one.message.register_wh}".encode()}

    _TOLD = {
        courses.START: _start,
        courses.READING: _reading,
        courses.STOP: _stop,
        courses.STATUS: _status,
        courses.BOOT: _boot,
        courses.INFER: _infer,
        courses.CORRECT: _correct,
    }
