"""Accounts over REST: balances, entries with keys, links."""

import asyncio

from sqlalchemy import text

from csms.db import accounts

ADDRESS = "/accounts/lDpl3b3d21Ma0vUBoMYdJuoOsVI3"


async def made(client, amount="100.00"):
    await client.put(ADDRESS, json={"currency": "UAH"})
    await client.post(f"{ADDRESS}/entries", json={"key": "first", "amount": amount})


async def test_an_account_is_made_and_topped_up(client):
    answer = await client.put(ADDRESS, json={"currency": "UAH"})
    assert answer.status_code == 201
    entry = await client.post(
        f"{ADDRESS}/entries", json={"key": "receipt 1", "amount": "50.25", "note": "cash"}
    )
    assert entry.status_code == 201
    assert (entry.json()["amount"], entry.json()["balance"], entry.json()["kind"]) == (
        "50.25",
        "50.25",
        "top_up",
    )
    account = (await client.get(ADDRESS)).json()
    assert (account["balance"], account["held"], account["available"]) == ("50.25", "0.00", "50.25")
    assert (await client.put(ADDRESS, json={"currency": "UAH", "blocked": True})).json()["blocked"] is True
    assert [a["id"] for a in (await client.get("/accounts")).json()["items"]] == [account["id"]]


async def test_the_same_key_is_entered_once_whoever_asks_at_once(client, world):
    await client.put(ADDRESS, json={"currency": "UAH"})
    body = {"key": "k", "amount": "10"}
    answers = await asyncio.gather(*(client.post(f"{ADDRESS}/entries", json=body) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert (await client.get(ADDRESS)).json()["balance"] == "10.00"
    other = await client.post(f"{ADDRESS}/entries", json={"key": "k", "amount": "11"})
    assert other.status_code == 409
    async with world.engine.connect() as db:
        differing = await db.scalars(
            text(
                "SELECT id FROM accounts WHERE balance_minor <>"
                " (SELECT coalesce(sum(amount_minor), 0) FROM account_entries WHERE account_id = accounts.id)"
            )
        )
        assert list(differing) == []


async def test_top_ups_at_once_lose_nothing(client):
    await client.put(ADDRESS, json={"currency": "UAH"})
    await asyncio.gather(
        *(client.post(f"{ADDRESS}/entries", json={"key": str(n), "amount": "0.01"}) for n in range(10))
    )
    assert (await client.get(ADDRESS)).json()["balance"] == "0.10"
    listed = (await client.get(f"{ADDRESS}/entries", params={"limit": 4})).json()
    assert [e["balance"] for e in listed["items"]] == ["0.10", "0.09", "0.08", "0.07"]
    rest = await client.get(f"{ADDRESS}/entries", params={"limit": 40, "cursor": listed["nextCursor"]})
    assert len(rest.json()["items"]) == 6


async def test_what_makes_no_sense_is_refused(client):
    await made(client)
    for body in (
        {"key": "a", "amount": "-1"},
        {"key": "a", "amount": "0"},
        {"key": "a", "amount": "0.001"},
        {"key": "", "amount": "1"},
        {"key": "a", "amount": "NaN"},
        {"key": "a", "amount": "1", "kind": "debit"},
        {"key": "a", "amount": "1000000001"},
        {"key": "k" * 129, "amount": "1"},
        {"key": "a", "amount": "1", "note": "n" * 501},
    ):
        assert (await client.post(f"{ADDRESS}/entries", json=body)).status_code == 422, body
    assert (await client.put(ADDRESS, json={"currency": "EUR"})).status_code == 409
    assert (await client.get("/accounts/unknown")).status_code == 404
    assert (await client.post("/accounts/unknown/links", json={})).status_code == 404
    correction = await client.post(
        f"{ADDRESS}/entries", json={"key": "c", "amount": "-1", "kind": "correction"}
    )
    assert correction.json()["balance"] == "99.00"


async def test_a_payment_is_entered_once_however_often_it_is_told(client, world):
    await made(client)
    account_id = ADDRESS.rpartition("/")[2]
    async with world.engine.begin() as db:
        await accounts.begin_payment(db, "p1", account_id, "fake", 5000)
        await accounts.begin_payment(db, "p2", account_id, "fake", 7000)
    for payment, paid in (("p1", True), ("p1", True), ("p1", False), ("p2", False), ("p2", True)):
        async with world.engine.begin() as db:
            assert await accounts.settle_payment(db, payment, "fake", paid=paid, now=world.now)
    async with world.engine.begin() as db:
        assert not await accounts.settle_payment(db, "p1", "other", paid=True, now=world.now)
    assert (await client.get(ADDRESS)).json()["balance"] == "150.00"


async def test_a_link_is_shown_once_and_stored_as_a_digest(client, world):
    await made(client)
    link = (await client.post(f"{ADDRESS}/links", json={"expiresInS": 60})).json()
    assert link["path"].endswith(link["token"])
    from csms.service.access import digest_of

    async with world.engine.begin() as db:
        assert await accounts.use_link(db, digest_of(link["token"]), world.now) == ADDRESS.rpartition("/")[2]
        assert await accounts.use_link(db, digest_of(link["token"]), world.now) is None
    late = (await client.post(f"{ADDRESS}/links", json={"expiresInS": 60})).json()
    async with world.engine.begin() as db:
        assert await accounts.use_link(db, digest_of(late["token"]), world.later(seconds=61)) is None
