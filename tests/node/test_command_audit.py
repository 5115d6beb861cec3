import asyncio

import pytest

from csms.adapter import Command
from csms.errors import ChargerOffline, ChargerRefused, CommandError, LedgerError
from csms.node.command_audit import AuditedAdapter, CommandAudit


class Charger:
    """Answers with what it was given."""

    def __init__(self, answer):
        self.answer = answer
        self.hung_up = []

    async def run(self, node):
        self.node = node

    async def perform(self, charger_id, command):
        self.command = command
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def hang_up(self, charger_id, generation):
        self.hung_up.append((charger_id, generation))


def recorder(kept):
    async def record(report):
        kept.append(report)

    return record


async def test_an_answer_is_recorded_before_it_is_passed_on():
    kept = []
    charger = Charger({"status": "Accepted"})
    adapter = AuditedAdapter(charger, CommandAudit(recorder(kept)))
    answer = await adapter.perform(
        "CP1", Command(action="Reset", payload={"type": "Soft"}, requested_by="me")
    )
    (report,) = kept
    assert answer == report.answer == {"status": "Accepted"}
    assert (report.outcome, report.action, report.requested_by, report.late) == (
        "answered",
        "Reset",
        "me",
        False,
    )
    assert report.id == charger.command.id


@pytest.mark.parametrize(
    ("error", "outcome", "answer"),
    [
        (ChargerOffline("gone"), "not_sent", None),
        (ChargerRefused("InternalError", "why"), "refused", {"code": "InternalError", "description": "why", "details": {}}),
        (CommandError("odd"), "failed", None),
    ],
)  # fmt: skip
async def test_a_failure_is_recorded_and_raised(error, outcome, answer):
    kept = []
    adapter = AuditedAdapter(Charger(error), CommandAudit(recorder(kept)))
    with pytest.raises(type(error)) as raised:
        await adapter.perform("CP1", Command(action="Reset", payload={}, id="x"))
    assert [(report.id, report.outcome, report.answer) for report in kept] == [("x", outcome, answer)]
    assert raised.value.recorded


async def test_an_answer_is_passed_on_though_it_cannot_be_recorded():
    async def record(report):
        raise LedgerError("refused")

    adapter = AuditedAdapter(Charger({"status": "Accepted"}), CommandAudit(record))
    assert await adapter.perform("CP1", Command(action="Reset", payload={})) == {"status": "Accepted"}


async def test_an_answer_does_not_wait_for_the_database_for_ever():
    audit = CommandAudit(lambda report: asyncio.Event().wait(), patience_s=0.05)
    adapter = AuditedAdapter(Charger({}), audit)
    assert await adapter.perform("CP1", Command(action="Reset", payload={})) == {}


async def test_everything_else_goes_to_the_adapter():
    charger = Charger({})
    adapter = AuditedAdapter(charger, CommandAudit(recorder([])))
    await adapter.hang_up("CP1", 3)
    assert charger.hung_up == [("CP1", 3)]
