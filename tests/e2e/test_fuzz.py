"""Any frames at all into a whole node: it lives, the connection lives, no transaction message is refused."""

import json
import os
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms.ocpp import frames
from csms.ocpp.messages import INBOUND, TRANSACTION_ACTIONS
from tests.harness.node_thread import Driver, driving

# `CSMS_FUZZ_EXAMPLES=20000` for a long run.
EXAMPLES = int(os.environ.get("CSMS_FUZZ_EXAMPLES", "60"))

texts = st.text(max_size=12) | st.sampled_from(
    [
        "1",
        "-1",
        "1e999",
        "NaN",
        "2023-12-07T10:15:30",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "\x00",
        "Wh",
    ]
)
scalars = (
    st.none() | st.booleans() | texts | st.floats() | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63 - 1, 2**63, 10**40])
)  # fmt: skip
fields = st.sampled_from(
    [
        "connectorId", "idTag", "meterStart", "timestamp", "reservationId", "transactionId", "meterStop", "reason",
        "transactionData", "meterValue", "sampledValue", "value", "unit", "measurand", "phase", "context", "status",
        "errorCode", "info", "vendorId", "chargePointVendor", "chargePointModel", "surplus",
    ]
)  # fmt: skip
payloads = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=6),
    max_leaves=12,
)
actions = st.sampled_from([*sorted(INBOUND), *sorted(TRANSACTION_ACTIONS) * 3, "Reset", "Nonsense"]) | texts
calls = st.tuples(st.just(2), st.uuids().map(str) | scalars, actions, payloads).map(json.dumps)
arrays = st.lists(scalars | payloads, max_size=6).map(json.dumps)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A call with something cut out of it or put into it."""
    text = draw(calls)
    at = draw(st.integers(0, len(text)))
    until = draw(st.integers(at, min(len(text), at + 8)))
    return text[:at] + draw(st.text(max_size=4)) + text[until:]


anything = st.lists(
    calls
    | arrays
    | damaged()
    | damaged().map(lambda text: text.encode(errors="replace"))
    | st.binary(max_size=60),
    min_size=1,
    max_size=8,
)


async def exchange(driver: Driver, charger: str, sent: list[str | bytes]) -> list[Any]:
    """All that comes back until a last call is answered."""
    point = await driver.dial(charger)
    try:
        for frame in sent:
            await point.send(frame.encode(errors="replace") if isinstance(frame, str) else frame)
        last = secrets.token_hex(8)
        await point.send([2, last, "Heartbeat", {}])
        answers: list[Any] = []
        while not answers or answers[-1][1] != last:
            answers.append(await point.receive(timeout_s=20))
        return answers
    finally:
        await point.close()


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 180)
def test_no_frame_ends_a_connection_and_no_transaction_message_is_refused(
    database_url: str, tmp_path: Path
) -> None:
    with driving(database_url, tmp_path) as driver:

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(anything)
        def run(sent: list[str | bytes]) -> None:
            answers = driver.do(exchange(driver, "CP-FUZZ", sent))
            refused = {answer[1] for answer in answers if answer[0] == 4}
            reads = [frames.parse(frame) for frame in sent]
            ids = Counter(read.message_id for read in reads)
            for read in reads:
                if getattr(read, "action", None) in TRANSACTION_ACTIONS and ids[read.message_id] == 1:
                    assert read.message_id not in refused, read
            assert all(answer[2] in ERROR_CODES for answer in answers if answer[0] == 4)

        run()
        assert not driver.node.task.done()
        unbooked = "SELECT count(*) FROM transactions WHERE energy_wh < 0"
        assert driver.fetch(unbooked) == [{"count": 0}]


ERROR_CODES = {
    "NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError", "FormationViolation",
    "PropertyConstraintViolation", "OccurenceConstraintViolation", "TypeConstraintViolation", "GenericError",
}  # fmt: skip
