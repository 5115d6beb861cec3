"""What a HEMS's message makes of the wish that is kept, and when a wish has come true."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from csms.adapter import BrokerMessage
from csms.core.records import ChargerState, Connector
from csms.db.charger_snapshot import StateSnapshot
from csms.db.plans import Plan
from csms.plans.hems import addressed, apply_command, settle_wish, status, status_topic
from csms.scheduling.hems import HemsRequest
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_delivery import DesiredPlan, InstalledPlan, PlanDelivery
from csms.scheduling.plan_view import PlanningTerms

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Amsterdam")
PERIOD = ChargePeriod(NOW + timedelta(hours=1), NOW + timedelta(hours=2), 12)
SET = {"periods": [{"start": "2026-11-21T14:00", "end": "2026-11-21T15:00"}], "source_id": "battery"}
HELD = InstalledPlan(
    source="hems",
    periods=(PERIOD,),
    until=PERIOD.end,
    profile_id=816000001,
    connector_id=0,
    stack_level=1,
    unit="A",
    phases=3,
    pushed_at=NOW,
)


def plan(wish: HemsRequest | None = None, delivery: PlanDelivery | None = None, **more: Any) -> Plan:
    usual: dict[str, Any] = {
        "charger_id": "CP/1",
        "terms": PlanningTerms(mode="hems", limit_a=12),
        "removed": False,
        "hems": wish or HemsRequest(),
        "delivery": delivery or PlanDelivery(),
        "online": True,
    }
    return Plan(**(usual | more))


def said(
    end: str, content: Any = b"", *, retained: bool = False, of: Plan | None = None
) -> HemsRequest | None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    heard = BrokerMessage(topic=f"hems/ocpp/CP%2F1/schedule/{end}", body=body, retained=retained)
    return apply_command(heard, of or plan(), zone=ZONE, now=NOW)


def test_topics_name_the_charger() -> None:
    assert status_topic("CP/1") == "hems/ocpp/CP%2F1/status"
    assert addressed("hems/ocpp/CP%2F1/schedule/set") == "CP/1"


def test_a_schedule_is_wanted_until_the_charger_has_it() -> None:
    wish = said("set", SET)
    assert wish is not None
    assert (wish.periods, wish.source_id, wish.result, wish.command_at) == (
        (PERIOD,),
        "battery",
        "pending",
        NOW,
    )
    assert settle_wish(wish, plan(wish), in_place=False, now=NOW) == wish
    done = settle_wish(wish, plan(wish, PlanDelivery(installed=HELD)), in_place=True, now=NOW)
    assert done == replace(wish, result="success")
    # The same again is followed already; a kept one is not even that.
    again = said("set", SET, of=plan(done))
    assert again == done
    assert said("set", SET, retained=True, of=plan(done)) is None
    assert said("set", {**SET, "max_current": 6}, retained=True, of=plan(done)) is not None


def test_a_refusal_is_told_and_the_wish_stays() -> None:
    wish = HemsRequest(periods=(PERIOD,), result="pending")
    no = PlanDelivery(problem="no smart charging", refused=DesiredPlan(source="hems"), refused_at=NOW)
    told = settle_wish(wish, plan(wish, no), in_place=False, now=NOW)
    assert (told.result, told.error, told.periods) == ("error", "no smart charging", (PERIOD,))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{bad", "Invalid schedule payload"),
        (b"\xff", "Invalid schedule payload"),
        ({"periods": []}, "Invalid schedule payload"),
        ({**SET, "max_current": 3}, "Invalid schedule payload"),
        ({**SET, "expires_at": "2026-11-21T12:00"}, "Schedule already expired"),
        (
            {"periods": [{"start": "2026-11-20T14:00", "end": "2026-11-20T15:00"}]},
            "No valid periods after conversion",
        ),
    ],
)
def test_what_cannot_be_followed_changes_nothing_but_the_status(body: Any, error: str) -> None:
    before = HemsRequest(periods=(PERIOD,), source_id="battery", digest="d", result="success")
    assert said("set", body, of=plan(before)) == replace(before, command_at=NOW, result="error", error=error)


def test_a_clear_counts_when_somebody_sends_it() -> None:
    before = HemsRequest(periods=(PERIOD,), digest="d", result="success")
    assert said("clear", b"", retained=True, of=plan(before)) is None
    wish = said("clear", b"any", of=plan(before))
    assert wish == HemsRequest(digest="d", command_at=NOW, result="pending")
    assert settle_wish(wish, plan(wish, PlanDelivery(installed=HELD)), in_place=False, now=NOW) == wish
    assert settle_wish(wish, plan(wish), in_place=False, now=NOW).result == "cleared"


def test_what_is_no_command_is_none() -> None:
    assert said("set", b"") is None
    assert said("status", SET) is None
    assert said("set", SET, of=plan(terms=PlanningTerms())) is None


def test_a_wish_expires_when_the_charger_is_rid_of_it() -> None:
    wish = HemsRequest(periods=(PERIOD,), expires_at=NOW, digest="d", command_at=NOW, result="success")
    late = NOW + timedelta(seconds=1)
    assert settle_wish(wish, plan(wish), in_place=False, now=NOW) == wish
    assert settle_wish(wish, plan(wish, PlanDelivery(installed=HELD)), in_place=False, now=late) == wish
    assert settle_wish(wish, plan(wish), in_place=False, now=late) == HemsRequest(
        digest="d", command_at=NOW, result="expired"
    )


@pytest.mark.parametrize(
    ("statuses", "online", "state", "ready"),
    [
        (("Available", "Charging"), True, "charging", True),
        (("Available", "SuspendedEVSE"), True, "plugged_in", True),
        (("Available", "Available"), True, "idle", True),
        (("Faulted", "Available"), True, "error", False),
        ((), True, "idle", True),
        (("Charging",), False, "offline", False),
    ],
)
def test_the_status_of_all_connectors(
    statuses: tuple[str, ...], online: bool, state: str, ready: bool
) -> None:
    snapshot = StateSnapshot(
        ChargerState(charger_id="CP/1"),
        (
            Connector(charger_id="CP/1", connector_id=0, status="Faulted"),
            *(
                Connector(charger_id="CP/1", connector_id=n, status=word, power_w=3680)
                for n, word in enumerate(statuses, 1)
            ),
        ),
        (),
    )
    told = status(plan(delivery=PlanDelivery(installed=HELD), online=online), snapshot, now=NOW)
    assert (told.state, told.charger_state, told.ready_for_schedule) == (state, state, ready)
    assert (told.schedule_source, told.next_period_start) == ("hems", "2026-11-21T13:00:00+00:00")
    assert told.current_power_kw == (3.68 * len(statuses) if statuses and online else None)
