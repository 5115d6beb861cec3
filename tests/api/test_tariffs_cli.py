"""`csms tariffs` with the REST interface behind it, without a socket and a process."""

import json
from pathlib import Path

import httpx
import pytest

from csms.errors import CsmsError
from tests.harness.command_line import Ran, Told

NIGHT = ("--band", "night 22:00-06:00 energy=0.20", "--zone", "Europe/Vienna")


async def test_a_tariff_is_set_changed_shown_and_deleted(did: Told, tmp_path: Path) -> None:
    made = await did(
        "tariffs", "set", "day", "--currency", "EUR", "--energy", "0.40", "--idle", "0.1", "--grace",
        "30", "--tax", "20", *NIGHT, "--band", "weekend 06:00-22:00 sat,sun time=0.01",
    )  # fmt: skip
    assert made == "day: version 1\n"
    assert await did("tariffs", "set", "day", "--energy", "0.50", "--tax", "none") == "day: version 2\n"
    listed = await did("tariffs", "list")
    assert listed == "day\t2\tEUR\t0.50\t0\t0\t0.1\tnight 22:00-06:00, weekend 06:00-22:00\n"
    versions = (await did("tariffs", "show", "day", "--versions")).splitlines()
    assert [line.split("\t")[0] for line in versions] == ["2", "1"]
    first = json.loads(await did("tariffs", "show", "day", "--version", "1"))
    assert (first["taxPercent"], first["bands"][1]["days"]) == ("20", ["sat", "sun"])
    kept = tmp_path / "day.json"
    kept.write_text(json.dumps(first))
    assert await did("tariffs", "set", "day", "--file", str(kept)) == "day: version 3\n"
    assert await did("tariffs", "set", "day", "--no-bands") == "day: version 4\n"
    assert await did("tariffs", "delete", "day") == "day: deleted\n"
    assert await did("tariffs", "list") == ""


async def test_a_session_over_night_is_priced_by_component(did: Told) -> None:
    await did(
        "tariffs", "set", "day", "--currency", "EUR", "--energy", "0.40", "--session", "1", "--idle", "0.05",
        "--tax", "20", "--tax-on-top", *NIGHT,
    )  # fmt: skip
    told = await did(
        "tariffs", "price", "day", "--kwh", "24", "--from", "2026-11-18T20:00", "--to", "06:00", "--idle", "120"
    )  # fmt: skip
    assert told.splitlines() == [
        "energy\t\t6 kWh\t0.40\t2.40",
        "energy\tnight\t18 kWh\t0.20\t3.60",
        "session\t\t\t\t1.00",
        "idle\tnight\t120.00 min\t0.05\t6.00",
        "tax\t\t\t20 %\t2.60",
        "total\t\t\t\t15.60 EUR",
    ]


async def test_tariffs_are_assigned_to_groups_and_tags(did: Told, client: httpx.AsyncClient) -> None:
    await did("tariffs", "set", "yard", "--currency", "EUR")
    await did("tags", "add", "VIP", "--tariff", "yard")
    assert "VIP\tAccepted\t–\t–\t–\tyard" in await did("tags", "list")
    await client.put("/chargers/CP1", json={})
    assert await did("tariffs", "assign", "yard", "--group", "depot", "--member", "CP1") == "yard: depot\n"
    assert (await client.get("/chargers/CP1")).json()["groupId"] == "depot"
    await did("tariffs", "assign", "none", "--tag", "VIP", "--group", "depot")
    assert (await client.get("/groups/depot")).json()["tariffId"] is None
    await did("tariffs", "delete", "yard")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["set", "new", "--energy", "1"], 2, "a new tariff needs one"),
        (["set", "new", "--currency", "ABC"], 1, "not a currency of ISO 4217"),
        (["set", "new", "--currency", "EUR", "--band", "a 22:00-06:00 b"], 2, "'b' in 'a 22:00-06:00 b'"),
        (["set", "new", "--currency", "EUR", "--band", "a power=3"], 2, "'power' is no rate"),
        (
            ["set", "new", "--currency", "EUR", "--band", "a 22:00-06:00", "--band", "b 05:00-07:00"],
            1,
            "band 1 ('b') overlaps band 0 ('a') on mon from 05:00 to 06:00",
        ),
        (["set", "new", "--file", "/nonexistent/t.json"], 1, "cannot be read"),
        (["show", "none"], 1, "There is no tariff 'none'"),
        (["price", "none", "--kwh", "1", "--from", "25:00", "--to", "06:00"], 2, "'25:00' is no time"),
        (["assign", "none"], 2, "--charger"),
    ],
)
async def test_wrong_usage_says_what_is_wrong(
    ran: Ran, arguments: list[str], status: int, words: str
) -> None:
    result = await ran("tariffs", *arguments)
    if status == 1:
        assert isinstance(result.exception, CsmsError)
        assert words in str(result.exception)
    else:
        assert result.exit_code == 2
        assert words in " ".join(result.output.replace("│", " ").split())
