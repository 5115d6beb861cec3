"""Top-ups through a payment provider, here a fake one."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from csms.db import accounts
from csms.errors import SettingsError
from csms.rental import payments
from csms.rental.payments import PaymentOrder, PaymentOutcome
from tests.harness.api_harness import ApiHarness
from tests.rental.conftest import UID, RentalHarness


class FakeProvider:
    """Reports what the body of a signed report says."""

    name = "fake"

    def __init__(self) -> None:
        self.orders: list[PaymentOrder] = []

    async def begin(self, order: PaymentOrder) -> str:
        self.orders.append(order)
        return f"https://pay.example/{order.payment_id}"

    async def outcome(self, headers: Mapping[str, str], body: bytes) -> PaymentOutcome | None:
        if headers.get("x-signature") != "good":
            return None
        payment_id, _, word = body.decode().partition(" ")
        return PaymentOutcome(payment_id=payment_id, paid={"paid": True, "failed": False}.get(word))


@pytest.fixture
async def phone(world: ApiHarness) -> AsyncIterator[tuple[httpx.AsyncClient, FakeProvider]]:
    """A signed-in renter and the payment provider."""
    fake = FakeProvider()
    site = RentalHarness(world, fake)
    await world.connect("coinop-1")
    client = (await site.phone(amount_minor=0)).http
    yield client, fake
    await client.aclose()


async def pressed(client: httpx.AsyncClient, amount: str) -> httpx.Response:
    page = await client.get("/r/coinop-1")
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert found is not None
    return await client.post("/r/top-up?next=/r/coinop-1", data={"csrf": found[1], "amount": amount})


async def balance(world: ApiHarness) -> int:
    async with world.engine.connect() as db:
        view = await accounts.get(db, UID)
    assert view is not None
    return view.account.balance_minor


async def test_a_paid_order_is_entered_once(
    world: ApiHarness, phone: tuple[httpx.AsyncClient, FakeProvider]
) -> None:
    client, fake = phone
    answer = await pressed(client, "150,50")
    (order,) = fake.orders
    assert answer.headers["location"] == f"https://pay.example/{order.payment_id}"
    assert (str(order.amount), order.currency, order.return_url) == (
        "150.50",
        "UAH",
        "http://rent/r/coinop-1",
    )
    assert await balance(world) == 0
    report: dict[str, Any] = {"content": f"{order.payment_id} paid", "headers": {"x-signature": "good"}}
    for _ in range(3):
        assert (await client.post("/r/payments/fake", **report)).status_code == 204
    assert await balance(world) == 15_050


async def test_reports_that_are_not_the_providers_change_nothing(
    world: ApiHarness, phone: tuple[httpx.AsyncClient, FakeProvider]
) -> None:
    client, fake = phone
    await pressed(client, "10")
    (order,) = fake.orders
    paid = f"{order.payment_id} paid"
    good = {"x-signature": "good"}
    assert (await client.post("/r/payments/fake", content=paid)).status_code == 403
    assert (await client.post("/r/payments/other", content=paid, headers=good)).status_code == 404
    assert (await client.post("/r/payments/fake", content="x paid", headers=good)).status_code == 404
    waiting = f"{order.payment_id} waiting"
    assert (await client.post("/r/payments/fake", content=waiting, headers=good)).status_code == 204
    failed = f"{order.payment_id} failed"
    assert (await client.post("/r/payments/fake", content=failed, headers=good)).status_code == 204
    assert (await client.post("/r/payments/fake", content=paid, headers=good)).status_code == 204
    assert await balance(world) == 0


@pytest.mark.parametrize("amount", ["", "0", "-5", "1e9", "NaN", "0.001", "1.005", "100001", "abc"])
async def test_an_impossible_amount_begins_no_payment(
    phone: tuple[httpx.AsyncClient, FakeProvider], amount: str
) -> None:
    client, fake = phone
    assert (await pressed(client, amount)).status_code == 422
    assert fake.orders == []


def test_a_provider_that_is_not_installed_is_refused_by_name() -> None:
    assert payments.load_provider(None) is None
    with pytest.raises(SettingsError, match="CSMS_RENTAL_PAYMENTS='paypal'"):
        payments.load_provider("paypal")
