"""A meter, a clock and a line that lie, over the pure core: what holds for every bill (design of the stories: tests/harness/adversary).

`CSMS_ADVERSARY_EXAMPLES` bounds it (docs/energy.md has the figures of a long run).
"""

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from tests.harness import bill_audit
from tests.harness.adversary import course as courses
from tests.harness.adversary import stories, verdicts
from tests.harness.adversary.course import Course, Told
from tests.harness.adversary.desk import Bill, Desk
from tests.harness.adversary.stories import Story
from tests.harness.fake_store import NOW

EXAMPLES = int(os.environ.get("CSMS_ADVERSARY_EXAMPLES", "2000"))


def examples(share: float, story: Any) -> Any:
    """A test of a share of the examples."""

    def of(test: Any) -> Any:
        bounded = settings(
            max_examples=max(1, int(EXAMPLES * share)),
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        return bounded(given(story=story)(test))

    return of


def played(story: Story, *, pays: bool = False) -> tuple[Course, list[Told], Desk]:
    course = courses.take(story, NOW)
    line = courses.told(course, story.mischief)
    return course, line, Desk(course, pays=pays).play(line).end()


def true_bills(course: Course) -> list[Bill]:
    """Those of the same story, if each message is told once and in order."""
    return Desk(course).play(courses.told(course, ())).end().bills()


@examples(0.3, stories.ANY)
def test_no_bill_has_more_than_flowed_but_what_a_false_register_can_add(story):
    course, line, desk = played(story)
    assert not verdicts.problems(course, line, desk.bills(), desk.tariff)


@examples(0.12, stories.stories(stories.FAULTY, stories.mischief(*stories.HARMLESS)))
def test_a_repeated_message_changes_no_bill(story):
    course, _, desk = played(story)
    assert verdicts.billed_by_session(desk.bills()) == verdicts.billed_by_session(true_bills(course))


@examples(0.16, stories.stories(stories.HONEST, stories.mischief(stories.LOSE, stories.DELAY, stories.QUEUE)))
def test_a_lost_or_late_message_raises_no_bill(story):
    course, line, desk = played(story)
    assert not verdicts.problems(course, line, desk.bills(), desk.tariff)
    assert not verdicts.raised(course, line, true_bills(course), desk.bills())


@examples(0.16, stories.stories(stories.HONEST, stories.mischief(stories.ABSURD, most=1)))
def test_one_absurd_value_changes_no_bill_by_more_than_the_bound(story):
    course, line, desk = played(story)
    before = {bill.session: bill for bill in true_bills(course)}
    for bill in desk.bills():
        other = before[bill.session]
        changed_wh = abs(bill.energy_wh - other.energy_wh)
        assert "held" in {bill.billing, other.billing} or changed_wh <= sum(
            verdicts.may_add_wh(course, line, bill)
        )


@examples(0.14, stories.stories(stories.FAULTY, stories.ANY_MISCHIEF))
def test_the_running_figure_is_the_final_one(story):
    course = courses.take(story, NOW)
    desk = Desk(course)
    for one in courses.told(course, story.mischief):
        # Each stop comes without a register: it adds no evidence.
        message = one.message
        if message.kind == courses.STOP:
            message = replace(message, register_wh=None, reading_wh=None)
        running = {t.id: desk.running_wh(t.id) for t in desk.store.transactions.values() if t.open}
        desk.hear(replace(one, message=message))
        for number, energy_wh in running.items():
            ended = desk.store.transactions[number]
            if message.kind in {courses.STOP, courses.INFER} and not ended.open:
                assert ended.energy_wh == energy_wh


@examples(0.12, stories.stories(stories.CORRECTED, stories.ANY_MISCHIEF))
def test_account_entries_add_up_to_the_cost_at_every_revision(story):
    course = courses.take(story, NOW)
    desk = Desk(course, pays=True)
    for one in courses.told(course, story.mischief):
        desk.hear(one)
        for bill in desk.bills():
            if not bill.open and bill.billing != "held":
                assert bill.entries_minor == bill.cost_minor
    assert not [bill for bill in desk.end().bills() if bill.open]


@examples(0.1, stories.ANY)
def test_the_audit_of_the_bills_finds_no_difference(story):
    _, _, desk = played(story)
    for ended in desk.store.transactions.values():
        assert not bill_audit.differences(desk.store, ended)
