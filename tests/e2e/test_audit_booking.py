"""Corrections that the audit books: real sessions on a real node, false figures in its database, and a second audit."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from csms.cli import app
from csms.core import rebooking, reports
from csms.core.audit import AuditedTransaction
from csms.core.tariffs import Tariff
from csms.core.work import Policy
from csms.db.engine import create_engine
from csms.errors import CsmsError, LedgerError
from csms.service import audit_booking as booking
from csms.service.audit_booking import AskedCorrection, BookedCorrection
from tests.e2e.conftest import Node
from tests.e2e.test_audit import FALSE, _banded, _inferred_and_amended, audited, audited_now, charged, execute
from tests.e2e.test_cli import command, csms, environment
from tests.harness.charging_site import BEGAN, OcppSite, moment
from tests.harness.ledger_harness import running

pytestmark = pytest.mark.timeout(120)  # it starts processes
POLICY = Policy(enrollment="open", unknown_tags="accept", tariff=Tariff(energy_rate=Decimal("0.12")))
# Why nothing is booked although the figure is false: what is stored does not show the true one, or an operator decides.
NOT_BOOKED = {
    "void": "no revision records it",
    "by an operator": "no revision records it",
    "billed to held": "the bill is held",
    "tariff": "its tariff is not the one that was published",
}


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()


async def asked(site: OcppSite, *ids: int) -> dict[int, AskedCorrection | str]:
    engine = create_engine(site.node.database_url)
    try:
        return {number: await booking.asked_of(engine, number, POLICY) for number in ids}
    finally:
        await engine.dispose()


async def book(site: OcppSite, questions: dict[int, AskedCorrection | str]) -> list[BookedCorrection]:
    yes = {number: one for number, one in questions.items() if isinstance(one, AskedCorrection)}
    engine = create_engine(site.node.database_url)
    try:
        async with running(site.node.database_url, policy=POLICY) as ledger:
            return [one async for one in booking.booked(ledger.record, engine, yes, POLICY)]
    finally:
        await engine.dispose()


async def found_again(site: OcppSite, number: int) -> AuditedTransaction:
    (one,) = [one for one in await audited_now(site) if one.id == number]
    return one


async def booked(site: OcppSite, number: int) -> None:
    """Book what differs: the second audit finds nothing."""
    questions = await asked(site, number)
    assert isinstance(questions[number], AskedCorrection), questions
    (done,) = await book(site, questions)
    assert done.why is None
    assert (await found_again(site, number)).differences == ()


@pytest.mark.parametrize("false", FALSE)
async def test_a_false_figure_is_booked_or_said_why_not(site: OcppSite, false: str) -> None:
    number = await charged(site, 6000, 2**31, 9000, 12_000)
    await audited(site)
    true = await site.transaction(number)
    await execute(site, FALSE[false][0], number)
    if false in NOT_BOOKED:
        (why,) = (await asked(site, number)).values()
        assert isinstance(why, str)
        assert NOT_BOOKED[false] in why
        return
    await booked(site, number)
    row = await site.transaction(number)
    assert row["revision"] > true["revision"]
    assert {**row, "revision": 0} == {**true, "revision": 0}
    cost = (await site.payloads("session_cost"))[-1]
    updated = (await site.payloads("updated"))[-1]
    assert (cost["revision"], updated["revision"]) == (row["revision"], row["revision"])
    assert (cost["amountMinor"], updated["energyUsed"]) == (true["cost_minor"], 24.0)


async def test_evidence_is_looked_for_where_the_true_times_are(site: OcppSite) -> None:
    """A false end hides the readings after it from the audit, a false connector all that name no transaction."""
    await _banded(site)
    (true,) = await site.transactions()
    await audited(site)
    for false in ("stopped_at = stopped_at - interval '40 minutes'", "connector_id = 7"):
        await execute(site, f"UPDATE transactions SET {false} WHERE id = $1", true["id"])
        await booked(site, true["id"])
        row = await site.transaction(true["id"])
        assert {**row, "revision": 0} == {**true, "revision": 0}


async def test_a_bill_that_its_evidence_makes_implausible_is_held(site: OcppSite) -> None:
    number = await charged(site, 6000, end={"meterStop": 2**32 - 1})
    await audited(site)
    await execute(
        site, "UPDATE transactions SET billing = 'billed', held_because = '{}' WHERE id = $1", number
    )
    questions = await asked(site, number)
    question = questions[number]
    assert isinstance(question, AskedCorrection)
    assert booking.totals({number: question})["USD"].held == 1
    await booked(site, number)
    row = await site.transaction(number)
    assert (row["billing"], row["held_because"]) == ("held", ["implausible_meter_stop"])
    assert [payload["revision"] for payload in await site.payloads("cost_held")] == [1, 2]
    assert await site.payloads("session_cost") == []


async def test_what_an_operator_has_decided_is_restored(site: OcppSite) -> None:
    corrected, void = await charged(site, 6000), await charged(site, 6000, timestamp=moment(-100))
    await audited(site)
    for number, action, body in ((corrected, "correct", {"energyWh": 20_000}), (void, "void", {})):
        path = f"/api/v1/transactions/{number}/{action}"
        assert (await site.node.api.post(path, json={"note": "seen", **body})).is_success
    await execute(site, "UPDATE transactions SET energy_wh = 21000 WHERE id = $1", corrected)
    await execute(site, "UPDATE transactions SET billing = 'billed', cost_minor = 378 WHERE id = $1", void)
    await booked(site, corrected)
    await booked(site, void)
    assert (await site.transaction(corrected))["energy_wh"] == 20_000
    row = await site.transaction(void)
    assert (row["billing"], row["cost_minor"]) == ("void", 0)
    steps = (await site.node.api.get(f"/api/v1/transactions/{void}/revisions")).json()["items"]
    assert [step["author"] for step in steps] == ["charger", "admin", "audit"]
    assert "billing billed, recomputed void" in steps[-1]["note"]


async def test_a_transaction_that_changes_after_the_question_is_skipped(site: OcppSite) -> None:
    number = await charged(site, 6000)
    await audited(site)
    await execute(site, "UPDATE transactions SET energy_wh = 1 WHERE id = $1", number)
    questions = await asked(site, number)
    path = f"/api/v1/transactions/{number}/correct"
    assert (await site.node.api.post(path, json={"note": "seen", "energyWh": 9000})).is_success
    (done,) = await book(site, questions)
    assert done.why == booking.CHANGED
    assert (await site.transaction(number))["energy_wh"] == 9000


async def test_what_the_ledger_refuses_is_said_and_a_silent_database_ends_the_booking(
    site: OcppSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await charged(site, 6000)
    await audited(site)
    await execute(site, "UPDATE transactions SET energy_wh = 1 WHERE id = $1", number)
    question = (await asked(site, number))[number]
    assert isinstance(question, AskedCorrection)

    async def refused(_report: Any) -> Any:
        raise LedgerError("no room")

    async def silent(_report: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(booking, "_LONGEST_WAIT_S", 0.05)
    engine = create_engine(site.node.database_url)
    try:
        (one,) = [one async for one in booking.booked(refused, engine, {number: question}, POLICY)]
        assert one.why == "no room"
        with pytest.raises(CsmsError, match="may be booked or not"):
            [one async for one in booking.booked(silent, engine, {number: question}, POLICY)]
    finally:
        await engine.dispose()


async def test_two_bookings_at_once_book_once(site: OcppSite) -> None:
    numbers = [await charged(site, 6000, timestamp=moment(-100 * n)) for n in range(5)]
    await audited(site)
    await execute(site, "UPDATE transactions SET cost_minor = 1 WHERE id = ANY($1)", numbers)
    questions = await asked(site, *numbers)
    done = await asyncio.gather(book(site, questions), book(site, questions))
    for number in numbers:
        outcomes = [one.why is None for each in done for one in each if one.id == number]
        assert sorted(outcomes) == [False, True]
        assert (await site.transaction(number))["revision"] == 2
    assert [one.differences for one in await audited_now(site)] == [()] * 5


async def test_without_messages_only_what_the_register_of_the_session_agrees_with_is_booked(
    site: OcppSite,
) -> None:
    number = await charged(site, 6000)
    await audited(site)
    await execute(site, "DELETE FROM messages WHERE charger_id = $1", site.charger)
    await execute(site, "UPDATE transactions SET meter_stop_wh = 24000 WHERE id = $1", number)
    assert (await asked(site, number))[number] == rebooking.UNPROVEN
    await execute(site, "UPDATE transactions SET meter_stop_wh = 25000, energy_wh = 1 WHERE id = $1", number)
    await booked(site, number)


async def test_a_tariff_that_is_not_the_stored_version_is_not_billed_by(site: OcppSite) -> None:
    await _banded(site)
    (row,) = await site.transactions()
    await audited(site)
    await execute(site, "DELETE FROM events WHERE charger_id = $1", site.charger)
    await execute(
        site,
        """UPDATE transactions SET tariff = jsonb_set(tariff, '{bands,0,energy_rate}', '"9"') WHERE id = $1""",
        row["id"],
    )
    assert (await asked(site, row["id"]))[row["id"]] == rebooking.OTHER_TARIFF


# --- a deleted charger --------------------------------------------------------------------------------------------------


async def _deleted(site: OcppSite) -> None:
    await site.hang_up()
    await site.offline()

    async def published() -> bool:
        return not await site.node.fetch("SELECT 1 FROM outbox WHERE charger_id = $1", site.charger)

    await site.node.until(published)
    response = await site.node.api.delete(f"/api/v1/chargers/{site.charger}")
    assert response.status_code == 204, response.text


@pytest.mark.parametrize("story", [charged, _banded, _inferred_and_amended], ids=lambda story: story.__name__)
async def test_the_transactions_of_a_deleted_charger_are_audited_and_booked(
    site: OcppSite, story: Any
) -> None:
    await story(site)
    await audited(site)
    await _deleted(site)
    found = await audited_now(site)
    assert [one.differences for one in found] == [()] * len(found)
    assert {one.checked_by for one in found} == {"readings"}
    number = found[0].id
    await execute(site, "UPDATE transactions SET energy_wh = energy_wh + 1 WHERE id = $1", number)
    if story is _banded:  # its price has a rate for idle time
        assert (await asked(site, number))[number] == rebooking.NO_STATUSES
        return
    await booked(site, number)
    assert [one.differences for one in await audited_now(site)] == [()] * len(found)


# --- accounts -----------------------------------------------------------------------------------------------------------


async def _paid(site: OcppSite) -> tuple[int, str]:
    """A session that an account has paid: transaction and account."""
    account = f"a-{site.charger}"
    assert (await site.node.api.put(f"/api/v1/accounts/{account}", json={"currency": "USD"})).is_success
    entry = {"key": f"receipt {account}", "amount": "50.00"}
    assert (await site.node.api.post(f"/api/v1/accounts/{account}/entries", json=entry)).is_success
    async with running(site.node.database_url, policy=POLICY) as ledger:
        begun = reports.Start(
            charger_id=site.charger,
            connector_id=1,
            id_tag="user123",
            key="k",
            meter_wh=1000,
            at=BEGAN,
            account_id=account,
        )
        number = (await ledger.record(begun)).transaction_id
        ended = reports.Stop(
            charger_id=site.charger, transaction_id=number, meter_wh=25_000, at=BEGAN + timedelta(hours=1)
        )
        await ledger.record(ended)
    assert (await site.transaction(number))["account_id"] == account
    return number, account


async def _balance(site: OcppSite, account: str) -> int:
    """The balance, which its entries add up to."""
    (row,) = await site.node.fetch(
        "SELECT balance_minor, (SELECT sum(amount_minor) FROM account_entries WHERE account_id = accounts.id)::int8 AS sum"
        " FROM accounts WHERE id = $1",
        account,
    )
    assert row["balance_minor"] == row["sum"]
    return int(row["balance_minor"])


async def test_an_account_is_debited_what_a_correction_changes(site: OcppSite) -> None:
    number, account = await _paid(site)
    assert await _balance(site, account) == 5000 - 288
    # As if csms had billed and debited less.
    await execute(site, "UPDATE transactions SET cost_minor = 200, cost = 2 WHERE id = $1", number)
    await execute(site, "UPDATE account_entries SET amount_minor = -200 WHERE transaction_id = $1", number)
    await execute(site, "UPDATE rentals SET debited_minor = 200 WHERE transaction_id = $1", number)
    await execute(site, "UPDATE accounts SET balance_minor = 4800 WHERE id = $1", account)
    await booked(site, number)
    assert await _balance(site, account) == 5000 - 288
    rows = await site.node.fetch(
        "SELECT amount_minor, note FROM account_entries WHERE transaction_id = $1 ORDER BY id", number
    )
    assert [tuple(row.values()) for row in rows] == [(-200, None), (-88, f"transaction {number}, revision 2")]


async def test_a_lost_entry_is_made_again_unless_the_balance_shows_that_it_was_deleted(
    site: OcppSite,
) -> None:
    number, account = await _paid(site)
    await execute(site, "DELETE FROM account_entries WHERE transaction_id = $1", number)
    assert (await asked(site, number))[number] == rebooking.UNSOUND
    await execute(site, "UPDATE accounts SET balance_minor = 5000 WHERE id = $1", account)
    await booked(site, number)
    assert await _balance(site, account) == 5000 - 288


# --- the command --------------------------------------------------------------------------------------------------------


async def test_the_command_asks_books_and_audits_again(site: OcppSite) -> None:
    numbers = [await charged(site, 6000, timestamp=moment(-100 * n)) for n in range(3)]
    await audited(site)
    cheap, void, dear = numbers
    await execute(site, "UPDATE transactions SET cost_minor = 300, cost = 3 WHERE id = $1", cheap)
    await execute(site, "UPDATE transactions SET cost_minor = 400, cost = 4 WHERE id = $1", dear)
    await execute(site, "UPDATE transactions SET billing = 'void' WHERE id = $1", void)

    async def run(*arguments: str, answer: str = "") -> tuple[int, str, str]:
        chosen = ("audit", "--charger", site.charger, *arguments)
        return await csms(*chosen, database=site.node.database_url, answer=answer)

    status, out, errors = await run("--book")  # no answer is no
    assert (status, errors) == (1, "")
    assert f"  transaction {void} is not booked: {rebooking.NO_RECORD}\n" in out
    assert "  to book as revision 2: 3.00 USD, then 2.88 USD\n" in out
    assert "  USD: 2 bills cost -1.24 in all\nBook 2 corrections? [y/N]:" in out
    assert [row["revision"] for row in await site.transactions()] == [1, 1, 1]
    status, out, errors = await run("--book", answer="y\n")
    assert (status, errors) == (1, "")
    assert "2 of 2 corrections booked and audited again; 1 transactions still differ.\n" in out
    assert {row["id"]: row["revision"] for row in await site.transactions()} == {cheap: 2, void: 1, dear: 2}

    await execute(site, "UPDATE transactions SET billing = 'billed', energy_wh = 1 WHERE id = $1", void)
    status, out, _ = await run("--book", "--json", "--yes")
    assert status == 0
    audit, done, summary = map(json.loads, out.splitlines())
    assert audit["id"] == void
    assert (done["booked"]["id"], done["booked"]["revision"]) == (void, 2)
    assert (summary["summary"]["differing"], summary["summary"]["booked"]) == (1, 1)
    # The node publishes what another process has booked.
    await site.node.until(lambda: len(site.node.of("updated", site.charger)) == 3)


@pytest.mark.parametrize("wrong", [("--yes",), ("--book", "--json")], ids=" ".join)
def test_a_question_that_cannot_be_asked_or_answered_is_wrong_usage(wrong: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["audit", *wrong])
    assert result.exit_code == 2
    assert "--yes" in result.stderr


async def test_a_booking_that_is_killed_is_finished_by_the_next_one(site: OcppSite) -> None:
    numbers = [await charged(site, 6000, timestamp=moment(-100 * n)) for n in range(12)]
    await audited(site)
    await execute(site, "UPDATE transactions SET cost_minor = 1 WHERE id = ANY($1)", numbers)
    process = await asyncio.create_subprocess_exec(
        *command("audit", "--charger", site.charger, "--book", "--json", "--yes"),
        env=environment(database=site.node.database_url),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(40):
        while b'"booked"' not in await process.stdout.readline():
            pass
        process.kill()
        await process.wait()
    left = [one.id for one in await audited_now(site) if one.differences]
    assert 0 < len(left) < len(numbers)
    await book(site, await asked(site, *left))
    assert [one.differences for one in await audited_now(site)] == [()] * len(numbers)
    assert [row["revision"] for row in await site.transactions()] == [2] * len(numbers)
    assert [payload["revision"] for payload in await site.payloads("updated")] == [2] * len(numbers)
