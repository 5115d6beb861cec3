"""An operator's day in a real browser, on a whole node, with the consumer of examples/ as a process beside it."""

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from csms.simulate.coin_op import FakeStation
from tests.bridges.coin_op.conftest import QUICK, CoinOpSite, CoinOpSiteFactory
from tests.harness.charge_points.answering import AnsweringChargePoint, answering_charge_point
from tests.harness.chromium import Tab, chromium
from tests.harness.servers import REPOSITORY

KYIV = "Europe/Kyiv"
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
ABSURD_WH = 2**32 - 1


class Desk:
    """The node, a charger with sessions, and the consumer's database."""

    def __init__(self, site: CoinOpSite, point: AnsweringChargePoint, bills: Path) -> None:
        self.site, self.node, self.point, self.bills = site, site.node, point, bills
        self.address = self.node.running.http.rstrip("/")

    async def token(self, name: str, role: str) -> str:
        answer = await self.node.api.post("/api/v1/tokens", json={"name": name, "role": role})
        return str(answer.json()["token"])

    async def start(self, connector: int) -> int:
        """Begin a session at 1,000 Wh, with a reading of 3,000 Wh after half an hour."""
        started = await self.point.tell(
            "StartTransaction",
            {"connectorId": connector, "idTag": "T", "meterStart": 1000, "timestamp": BEGAN.isoformat()},
        )
        at = (BEGAN + timedelta(minutes=30)).isoformat()
        reading = {"timestamp": at, "sampledValue": [{"value": "3000"}]}
        number = int(started["transactionId"])
        values = {"connectorId": connector, "transactionId": number, "meterValue": [reading]}
        await self.point.tell("MeterValues", values)
        return number

    async def stop(self, number: int, register_wh: int) -> None:
        at = (BEGAN + timedelta(hours=1)).isoformat()
        await self.point.tell(
            "StopTransaction", {"transactionId": number, "meterStop": register_wh, "timestamp": at}
        )

    async def session(self, connector: int, register_wh: int) -> int:
        number = await self.start(connector)
        await self.stop(number, register_wh)
        return number

    async def row(self, number: int) -> dict[str, Any]:
        (row,) = await self.node.fetch("SELECT * FROM transactions WHERE id = $1", number)
        return dict(row)

    async def booked(self, number: int) -> tuple[int, str | None, int | None]:
        """Return revision, billing and energy."""
        row = await self.row(number)
        return row["revision"], row["billing"], row["energy_wh"]

    async def sign_in(self, tab: Tab, token: str) -> None:
        await tab.go(f"{self.address}/")
        await tab.type("input[name=token]", token)
        await tab.click("button[type=submit]")
        await tab.shows("Sign out")

    async def open(self, tab: Tab, number: int) -> None:
        await tab.go(f"{self.address}/transactions/{number}")

    def billed(self) -> list[tuple[Any, ...]]:
        """Return what the consumer has: transaction, revision, amount."""
        with contextlib.closing(sqlite3.connect(self.bills)) as db:
            return db.execute(
                "SELECT transaction_id, revision, amount_minor FROM bills ORDER BY transaction_id"
            ).fetchall()

    async def agreed(self) -> bool:
        """Whether the consumer has the bills that Postgres has."""
        rows = await self.node.fetch(
            "SELECT id, revision, cost_minor FROM transactions WHERE billing IN ('billed', 'void') ORDER BY id"
        )
        return self.billed() == [tuple(row.values()) for row in rows]


# --- what an operator does ----------------------------------------------------------------------------------------


async def unfold(tab: Tab, kind: str) -> None:
    await tab.click(f"#{kind} summary")


async def enter(tab: Tab, kind: str, **fields: str) -> None:
    for name, value in fields.items():
        await tab.type(f"#{kind} [name={name}]", value)


async def press(tab: Tab, kind: str, *, times: int = 1) -> None:
    await tab.click(f"#{kind} button:not(.secondary)", times=times)


async def previewed(tab: Tab, kind: str, *expected: str) -> None:
    """Press Preview, and wait for this text in what appears."""
    await tab.click(f"#{kind} button.secondary")
    for text in expected:
        await tab.until(f"document.querySelector('#{kind} .preview').innerText.includes({json.dumps(text)})")


async def refused(tab: Tab, kind: str, name: str, value: str, sentence: str) -> None:
    """Book with this value, wait for the sentence at the field, and empty the field."""
    await enter(tab, kind, **{name: value})
    await tab.run(
        f"document.querySelector('#{kind}-{name}-wrong').innerText = ''"
    )  # what an earlier one left
    await press(tab, kind)
    await tab.until(
        f"document.querySelector('#{kind}-{name}-wrong').innerText.includes({json.dumps(sentence)})"
    )
    await enter(tab, kind, **{name: ""})


async def revisions(tab: Tab, count: int) -> list[str]:
    """Wait until the page lists so many revisions, and return their rows."""
    rows = "[...document.querySelectorAll('#revisions tbody tr')].map((row) => row.innerText)"
    await tab.until(f"{rows}.length === {count}")
    found: list[str] = await tab.run(rows)
    return [" ".join(row.split()) for row in found]


@pytest.fixture
async def desk(start_site: CoinOpSiteFactory, tmp_path: Path) -> AsyncIterator[Desk]:
    site = await start_site(FakeStation(id="s1", behaviour=QUICK), speed=200, require_account=True)
    async with answering_charge_point(site.node.ocpp, "CP1") as point:
        made = Desk(site, point, tmp_path / "bills.sqlite")
        async with consumer(made):
            yield made


@contextlib.asynccontextmanager
async def consumer(desk: Desk) -> AsyncIterator[None]:
    """Run the consumer as its README says, until the end of the block."""
    broker, prefix = desk.node.broker, desk.node.prefix
    assert broker is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(REPOSITORY / "examples" / "billing_consumer" / "consumer.py"),
        f"--mqtt=mqtt://{broker.host}:{broker.port}",
        f"--prefix={prefix}",
        f"--client-id=billing-{prefix.replace('/', '-')}",
        f"--csms={desk.address}",
        f"--token={await desk.token('billing', 'viewer')}",
        f"--database={desk.bills}",
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
        assert process.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 20)
    assert process.returncode == 0


# --- the day ------------------------------------------------------------------------------------------------------


async def held_bills_are_decided(desk: Desk, anna: Tab, boris: Tab, released: int, voided: int) -> None:
    await anna.go(f"{desk.address}/attention")
    shown = await anna.text("main")
    assert "The register at the end is more than the meter can have advanced to." in shown
    assert "What to do: open the transaction, then release, correct or void its bill." in shown
    await anna.click(f'a[href="/transactions/{released}"]')
    await anna.shows("The bill is held")
    await unfold(anna, "release")
    await refused(anna, "release", "note", "  ", "A reason is needed")
    assert await desk.booked(released) == (1, "held", 2000)
    await enter(anna, "release", note="read the meter")
    await press(anna, "release")
    first, second = await revisions(anna, 2)
    assert "charger –" in first
    assert "anna read the meter Billing held → billed" in second

    await desk.open(boris, voided)
    await desk.open(anna, voided)
    await unfold(anna, "void")
    await enter(anna, "void", note="test of the fitter")
    await press(anna, "void")
    await revisions(anna, 2)
    await unfold(boris, "release")
    await enter(boris, "release", note="looks fine")
    await boris.offline(True)
    await press(boris, "release")
    await boris.shows("csms does not answer. Reload the page to see whether it was done.")
    await boris.offline(False)
    await press(boris, "release")
    await boris.shows("has changed in the meantime: its revision is 2, not 1. Nothing was done.")
    assert await desk.booked(voided) == (2, "void", 2000)
    await boris.click("#release .preview a")
    await boris.shows("The bill is void: the session costs nothing.")
    await anna.go(f"{desk.address}/attention")
    assert await anna.run("document.querySelectorAll('[aria-labelledby=h-held] tbody tr').length") == 0


async def a_bill_is_corrected(desk: Desk, anna: Tab, number: int) -> None:
    await desk.open(anna, number)
    await unfold(anna, "correct")
    await enter(anna, "correct", note="photo of the meter")
    for name, value, sentence in (
        ("energyWh", "six", "“Energy” must be a whole number of Wh"),
        ("energyWh", "-5", "“Energy” must be a whole number of Wh"),
        ("meterStopWh", "1" + 400 * "0", "of at most 15 digits"),
        ("meterStopWh", "500", "is below that at the start (1000 Wh)"),
        ("note", "", "A reason is needed"),
    ):
        await refused(anna, "correct", name, value, sentence)
    await enter(anna, "correct", energyWh="900000000", note="photo of the meter")
    await press(anna, "correct")
    await anna.shows("900000000 Wh is more than CP1 can give in")
    assert await desk.booked(number) == (1, "billed", 6000)
    await enter(anna, "correct", energyWh="4000")
    stopped_at = BEGAN + timedelta(minutes=45)
    local = stopped_at.astimezone(ZoneInfo(KYIV))
    await anna.choose("#correct [name=stoppedAt]", f"{local:%Y-%m-%dT%H:%M:%S}")
    await previewed(anna, "correct", "6,000 Wh\t4,000 Wh", f"{local:%I:%M:%S}")
    assert await desk.booked(number) == (1, "billed", 6000)
    await press(anna, "correct", times=2)
    _, second = await revisions(anna, 2)
    assert "anna photo of the meter" in second
    assert "Energy 6,000 Wh → 4,000 Wh" in second
    assert (await desk.row(number))["stopped_at"] == stopped_at


async def a_session_is_stopped(desk: Desk, anna: Tab, number: int) -> None:
    await desk.open(anna, number)
    await unfold(anna, "stop")
    await enter(anna, "stop", meterStopWh="3500", note="dismantled")
    early = (BEGAN - timedelta(minutes=1)).astimezone(ZoneInfo(KYIV))
    await anna.choose("#stop [name=stoppedAt]", f"{early:%Y-%m-%dT%H:%M:%S}")
    await press(anna, "stop")
    sentence = "“Stopped at” is before the start of the transaction"
    await anna.until(f"document.querySelector('#stop-stoppedAt-wrong').innerText.includes('{sentence}')")
    await anna.choose("#stop [name=stoppedAt]", "")
    await previewed(anna, "stop", "running\tbilled")
    await press(anna, "stop")
    (only,) = await revisions(anna, 1)
    assert "anna dismantled" in only
    assert await desk.booked(number) == (1, "billed", 2500)
    await desk.stop(number, 9000)
    await desk.open(anna, number)
    _, second = await revisions(anna, 2)
    assert "charger – " in second
    assert "Energy 2,500 Wh → 8,000 Wh" in second


async def an_account_is_refunded(desk: Desk, anna: Tab, number: int) -> None:
    paid = (await desk.row(number))["cost_minor"]
    await desk.open(anna, number)
    await unfold(anna, "correct")
    await enter(anna, "correct", energyWh="50", note="half of it was lost")
    await press(anna, "correct")
    await revisions(anna, 2)
    costs = (await desk.row(number))["cost_minor"]
    assert 0 < costs < paid
    (entries,) = await desk.node.fetch(
        "SELECT sum(amount_minor) AS minor, count(*) AS count FROM account_entries WHERE transaction_id = $1",
        number,
    )
    (account,) = await desk.node.fetch("SELECT balance_minor FROM accounts WHERE id = 'payer'")
    assert (entries["minor"], account["balance_minor"]) == (-costs, 50_000 - costs)


async def a_viewer_only_looks(desk: Desk, vera: Tab, number: int) -> None:
    await desk.open(vera, number)
    await revisions(vera, 2)
    assert await vera.run("document.querySelectorAll('main button, main form').length") == 0
    body = (
        "new URLSearchParams({csrf: document.querySelector('[name=csrf]').value, note: 'x', revision: '2'})"
    )
    post = f"fetch(location.pathname + '/void', {{method: 'POST', body: {body}}}).then((answer) => answer.status)"
    assert await vera.run(post) == 403


@pytest.mark.timeout(120)
async def test_operators_decide_about_bills_and_the_consumer_ends_with_their_sum(desk: Desk, tmp_path: Path):
    node = desk.node
    await node.api.put("/api/v1/accounts/payer", json={"currency": "UAH"})
    await node.api.post("/api/v1/accounts/payer/entries", json={"key": "1", "amount": "500"})
    await desk.site.rent("payer")
    rented = await desk.site.number()
    running, finished = await desk.start(1), await desk.session(2, 7000)
    released, voided = await desk.session(3, ABSURD_WH), await desk.session(4, ABSURD_WH)
    await node.until(lambda: desk.site.stations["s1"].state == "completed")
    await desk.site.stop()
    async with chromium(tmp_path / "chromium") as browser:
        anna, boris = [await browser.open(zone=KYIV) for _ in range(2)]
        await desk.sign_in(anna, await desk.token("anna", "operator"))
        await desk.sign_in(boris, await desk.token("boris", "operator"))
        await held_bills_are_decided(desk, anna, boris, released, voided)
        await a_bill_is_corrected(desk, anna, finished)
        await a_session_is_stopped(desk, anna, running)
        await an_account_is_refunded(desk, anna, rented)
        vera = boris  # at the same place
        await vera.click(".who button")
        await vera.shows("Access token")
        await desk.sign_in(vera, await desk.token("vera", "viewer"))
        await a_viewer_only_looks(desk, vera, finished)
    await node.until(desk.agreed)
    assert [row[:2] for row in desk.billed()] == [
        (number, 2) for number in sorted((rented, running, finished, released, voided))
    ]
    (total,) = await node.fetch("SELECT sum(cost_minor) AS minor FROM transactions")
    assert sum(row[2] for row in desk.billed()) == total["minor"] > 0
