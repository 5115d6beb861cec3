"""Reservation."""

from tests.harness.conformance.bench import ACCEPTED, VALID, Bench, ahead
from tests.harness.conformance.charge_point import Payload
from tests.harness.waiting import until

RESERVATION_ID = 31
FAMILY, SECOND = "FAMILY", "SECOND-TAG"


def _reserve(connector_id: int = 1, **more: object) -> Payload:
    return {
        "connectorId": connector_id,
        "expiryDate": ahead(minutes=15),
        "idTag": VALID,
        "reservationId": RESERVATION_ID,
        **more,
    }


async def _reserved(bench: Bench, connector_id: int = 1, **more: object) -> None:
    await bench.command("ReserveNow", _reserve(connector_id, **more), ACCEPTED)
    await bench.status(connector_id, "Reserved")
    assert (await bench.connector(connector_id))["status"] == "Reserved"
    assert await _stored(bench) == [(RESERVATION_ID, connector_id, VALID, None, None)]


async def _stored(bench: Bench) -> list[tuple[object, ...]]:
    return await bench.remembered(
        "reservations", "id", "connector_id", "id_tag", "ended_as", "transaction_id"
    )


async def _state(bench: Bench) -> str:
    """As the interface shows it."""
    (shown,) = (await bench.api("GET", f"/chargers/{bench.id}/reservations"))["items"]
    return shown["state"]


async def _not_reserved(bench: Bench, answer: str) -> None:
    await bench.command("ReserveNow", _reserve(), {"status": answer})
    assert await _stored(bench) == []
    await bench.no_transaction()


async def test_tc_046_reservation_of_a_connector_transaction(bench: Bench) -> None:
    """ReserveNow names the connector and a valid tag; Reserved is answered; the start under that reservation
    is accepted, stored and published with its number; the reservation is stored as used by it."""
    await bench.booted()
    await _reserved(bench)
    await bench.authorized()
    transaction_id = await bench.start(reservationId=RESERVATION_ID)
    await bench.status(1, "Charging")
    stored = await bench.api("GET", f"/transactions/{transaction_id}")
    assert stored["reservationId"] == RESERVATION_ID
    assert await _stored(bench) == [(RESERVATION_ID, 1, VALID, "used", transaction_id)]


async def test_tc_047_reservation_of_a_connector_expire(bench: Bench) -> None:
    """ReserveNow names an expiry; Reserved and, later, Available are answered, stored and published; the
    reservation shows as expired by then; no transaction is stored."""
    await bench.booted()
    await _reserved(bench, expiryDate=ahead(seconds=1))

    async def is_expired() -> bool:
        return await _state(bench) == "expired"

    await until(is_expired, 10)
    await bench.status(1, "Available")
    assert (await bench.connector(1))["status"] == "Available"
    await bench.no_transaction()


async def test_tc_048_1_reservation_faulted(bench: Bench) -> None:
    """On a faulted connector the operator receives Faulted; no reservation is stored."""
    await bench.booted()
    await bench.status(1, "Faulted", "OtherError")
    await _not_reserved(bench, "Faulted")


async def test_tc_048_2_reservation_occupied(bench: Bench) -> None:
    """On a connector in use the operator receives Occupied; no reservation is stored."""
    await bench.booted()
    await bench.status(1, "Preparing")
    await _not_reserved(bench, "Occupied")


async def test_tc_048_3_reservation_unavailable(bench: Bench) -> None:
    """ChangeAvailability makes the connector inoperative, Unavailable is answered; of the reservation the
    operator receives Unavailable; what was asked of the connector is stored, a reservation is not."""
    await bench.booted()
    await bench.command("ChangeAvailability", {"connectorId": 1, "type": "Inoperative"}, ACCEPTED)
    await bench.status(1, "Unavailable")
    assert await bench.remembered("availabilities", "connector_id", "desired") == [(1, "Inoperative")]
    await _not_reserved(bench, "Unavailable")


async def test_tc_048_4_reservation_rejected(bench: Bench) -> None:
    """The operator receives the charge point's Rejected; no reservation is stored."""
    await bench.booted()
    await _not_reserved(bench, "Rejected")


async def test_tc_049_reservation_of_a_charge_point(bench: Bench) -> None:
    """ReserveNow names connector 0; Reserved is answered, stored and published for the charger as a whole, and the
    reservation stored."""
    await bench.booted()
    await _reserved(bench, connector_id=0)


async def test_tc_051_cancel_reservation(bench: Bench) -> None:
    """CancelReservation names the reservation made before; the operator receives Accepted; Available is answered,
    stored and published, and the reservation stored as cancelled."""
    await bench.booted()
    await _reserved(bench)
    await bench.command("CancelReservation", {"reservationId": RESERVATION_ID}, ACCEPTED)
    await bench.status(1, "Available")
    assert (await bench.connector(1))["status"] == "Available"
    assert await _stored(bench) == [(RESERVATION_ID, 1, VALID, "cancelled", None)]


async def test_tc_052_cancel_reservation_rejected(bench: Bench) -> None:
    """CancelReservation names the reservation made before; the operator receives Rejected and the connector stays
    Reserved."""
    await bench.booted()
    await _reserved(bench)
    await bench.command("CancelReservation", {"reservationId": RESERVATION_ID}, {"status": "Rejected"})
    assert (await bench.connector(1))["status"] == "Reserved"


async def test_tc_053_use_a_reserved_connector_with_parent_id_tag(bench: Bench) -> None:
    """ReserveNow carries tag and parent; another tag of that parent is accepted with its parentIdTag named, and
    its start under the reservation stored and published with both; the reservation is stored as used by it."""
    await bench.tag(VALID, status="Accepted", parentIdTag=FAMILY)
    await bench.tag(SECOND, status="Accepted", parentIdTag=FAMILY)
    await bench.booted()
    await _reserved(bench, parentIdTag=FAMILY)
    assert await bench.authorize(SECOND) == {"status": "Accepted", "parentIdTag": FAMILY}
    transaction_id = await bench.start(SECOND, reservationId=RESERVATION_ID)
    await bench.status(1, "Charging")
    stored = await bench.api("GET", f"/transactions/{transaction_id}")
    event = (await bench.published("started"))["payload"]
    for shown in (stored, event):
        assert (shown["parentIdTag"], shown["reservationId"]) == (FAMILY, RESERVATION_ID)
    assert await _stored(bench) == [(RESERVATION_ID, 1, VALID, "used", transaction_id)]
