"""What must hold of the bills of a story, in spite of what its meters, its clock and its line did."""

from collections.abc import Iterator, Sequence

from csms.core.evidence import OPERATOR
from csms.core.pricing import session_cost
from csms.core.session_register import limit_wh
from csms.core.tariffs import Tariff
from tests.harness.adversary import course as courses
from tests.harness.adversary.course import Course, Told
from tests.harness.adversary.desk import Bill
from tests.harness.adversary.stories import MAX_W

_INFERRED = "transaction_id_inferred"
_PAUSE_MIN = 11  # between a stop and the next start
# The anomalies that say that a bill may have more than what flowed.
SAYS_WHY = frozenset(
    {
        "register_overlap", "register_reset", "register_wrapped", "register_jumped", "session_register",
        "meter_start_replaced", "implausible_reading", "no_meter_start",
    }
)  # fmt: skip


def problems(course: Course, line: Sequence[Told], bills: Sequence[Bill], tariff: Tariff) -> list[str]:
    """Return what does not hold, in words."""
    found = [problem for bill in bills for problem in _of_one(bill, tariff)]
    return found + list(_conservation(course, line, bills))


def _of_one(bill: Bill, tariff: Tariff) -> Iterator[str]:
    if bill.open or bill.billing not in {"billed", "held", "void"}:
        yield f"{bill} has not ended as billed, held or void"
    if (bill.billing == "held") != bool(bill.held_because):
        yield f"{bill} is held without a reason, or not held for one"
    if bill.energy_wh < 0 or bill.cost_minor < 0 or bill.seconds < 0:
        yield f"{bill} is negative"
    expected = session_cost(tariff, bill.energy_wh, bill.seconds).amount_minor
    if bill.cost_minor != (0 if bill.billing == "void" else expected):
        yield f"{bill} should cost {expected}"
    if bill.entries_minor is not None and bill.billing != "held" and bill.entries_minor != bill.cost_minor:
        yield f"{bill} has account entries of {bill.entries_minor}"


def extent(course: Course, line: Sequence[Told], session: int) -> tuple[float, float]:
    """Return the minutes in which energy can be this session's: up to the next start that was told in time."""
    connector = course.story.sessions[session].connector
    begun = course.began_min[session]
    first: dict[int, str] = {}
    for one in line:
        if one.message.kind in {courses.START, courses.READING, courses.STOP}:
            first.setdefault(one.message.session, one.message.kind)
    known = [n for n, kind in first.items() if kind == courses.START]
    following = [
        course.began_min[n]
        for n in known
        if course.story.sessions[n].connector == connector and course.began_min[n] > begun
    ]
    until = min(following, default=course.messages[-1].minute)
    return begun, until


def may_add_wh(course: Course, line: Sequence[Told], bill: Bill) -> list[int]:
    """Return the energy in Wh that each false value of a session's registers may have added to its bill.

    It is what the charger can give between the values around it. A stop that named no transaction may be of the other
    connector, whose register this session's may have reached.
    """
    begun, until = extent(course, line, bill.session)
    connector = course.story.sessions[bill.session].connector
    told = [
        one
        for one in line
        if one.message.connector == connector
        and one.message.kind in {courses.START, courses.READING, courses.STOP}
        and begun <= one.message.minute <= until
    ]
    told.sort(key=lambda one: one.message.minute)
    found = []
    for place, one in enumerate(told):
        if one.message.absurd:
            found.append(_limit_wh(told[max(place - 1, 0)], told[min(place + 1, len(told) - 1)]))
    for minute in course.breaks[connector]:
        if begun <= minute <= until:
            # Every later value is beyond the break too, whichever is believed first.
            before = [one for one in told if one.message.minute < minute] or told
            found.append(max(_limit_wh(before[-1], one) for one in told))
    if _INFERRED in bill.anomalies:
        found.append(_limit_wh(told[0], line[-1]))
    return found


def _limit_wh(before: Told, after: Told) -> int:
    """What the charger can give between two messages, by the longer of the two clocks."""
    stamped_s = 0.0
    if min(before.message.at, after.message.at).year > 1970:
        stamped_s = (after.message.at - before.message.at).total_seconds()
    return limit_wh(MAX_W, max(abs(stamped_s), 60 * abs(after.received_min - before.received_min)))


def raised(course: Course, line: Sequence[Told], before: Sequence[Bill], after: Sequence[Bill]) -> list[str]:
    """Return which bills are higher than those of the same story of which each message is told once, in order.

    If neither the stop of a session nor the next start is told, csms takes both sessions for one. Its bill then has at
    most what flowed in both. A bill whose stop named no transaction may end by the register of the other connector, and
    says so.
    """
    found = []
    for session, billed_wh in billed_by_session(after).items():
        most_wh = billed_by_session(before).get(session, 0)
        _, until = extent(course, line, session)
        if until > course.ended_min[session] + _PAUSE_MIN:
            most_wh = max(
                most_wh,
                course.flow_wh(course.story.sessions[session].connector, course.began_min[session], until),
            )
        guessed = [bill for bill in after if bill.session == session and _INFERRED in bill.anomalies]
        most_wh += sum(sum(may_add_wh(course, line, bill)) for bill in guessed)
        if billed_wh > most_wh:
            found.append(f"session {session} is billed {billed_wh} Wh instead of {most_wh} Wh: {after}")
    return found


def billed_by_session(bills: Sequence[Bill]) -> dict[int, int]:
    """Return the energy in Wh that is billed, by session. What is held is not."""
    billed: dict[int, int] = {}
    for bill in bills:
        billed[bill.session] = billed.get(bill.session, 0) + (
            bill.energy_wh if bill.billing == "billed" else 0
        )
    return billed


def _conservation(course: Course, line: Sequence[Told], bills: Sequence[Bill]) -> Iterator[str]:
    for bill in bills:
        if bill.billing != "billed" or bill.source == OPERATOR:
            continue
        connector = course.story.sessions[bill.session].connector
        flowed_wh = course.flow_wh(connector, *extent(course, line, bill.session))
        too_much_wh = bill.energy_wh - flowed_wh
        if too_much_wh <= 0:
            continue
        may_wh = may_add_wh(course, line, bill)
        if too_much_wh > sum(may_wh):
            yield f"{bill} has {too_much_wh} Wh more than flowed, at most {may_wh}"
    for connector in (1, 2):
        own = [
            b
            for b in bills
            if course.story.sessions[b.session].connector == connector
            and b.billing == "billed"
            and b.source != OPERATOR
        ]
        flowed_wh = course.flow_wh(connector, 0, course.messages[-1].minute)
        may = sum(sum(may_add_wh(course, line, b)) for b in own)
        if (billed := sum(b.energy_wh for b in own)) > flowed_wh + may and not any(
            SAYS_WHY & {*b.anomalies} for b in own
        ):
            yield f"{billed} of {flowed_wh} Wh are billed: {own}"
