"""schemathesis: requests made from the OpenAPI description, valid and invalid, are never answered with an internal error."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from csms.api.app import create_app
from csms.security import pki
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness

EXAMPLES = int(os.environ.get("CSMS_OPENAPI_EXAMPLES", "3"))  # of each operation, valid and invalid each
# What REST answers of a charger: not supported, refused, not in time.
OF_CHARGERS = {501, 502, 504}
# schemathesis makes up tokens of its own, too.
AUTHORIZED = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
_BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(50 * EXAMPLES)  # some 7 s of CPU for each example, beside other tests
async def test_no_request_of_the_description_is_an_internal_error(world: ApiHarness):
    await world.connect("0")
    world.context.authority = _authority
    app = create_app(world.context)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://csms", timeout=30) as client:
        described = (await client.get("/api/v1/openapi.json")).json()
        found = await asyncio.to_thread(_requests, described, client, asyncio.get_running_loop())
    assert len(found) == sum(len(operations) for operations in described["paths"].values())
    statuses = sum(found.values(), Counter[int]())
    # A generator that has lost its way, or a server that refuses everything, would pass without these.
    assert statuses.total() >= len(found) * EXAMPLES
    assert statuses[200] > len(found) / 2
    assert statuses[422] > len(found) / 2


def _requests(
    described: dict[str, Any], client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop
) -> dict[str, Counter[int]]:
    """Send requests for every operation from a thread; the statuses of their answers."""
    schema = schemathesis.openapi.from_dict(described)
    found: dict[str, Counter[int]] = {}

    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        counted = found[operation.label] = Counter()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not (
                operation.body or operation.query or operation.path_parameters
            ):
                continue  # an operation that takes nothing has no invalid request
            requests = operation.as_strategy(generation_mode=mode)
            _BOUNDED(given(requests)(_sender(client, loop, counted)))()
    return found


def _sender(
    client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop, counted: Counter[int]
) -> Callable[[schemathesis.Case], None]:
    def send(case: schemathesis.Case) -> None:
        request = case.as_transport_kwargs(base_url="http://csms", headers=AUTHORIZED)
        request.pop("cookies", None)
        if "data" in request:
            request["content"] = request.pop("data")
        answer = asyncio.run_coroutine_threadsafe(client.request(**request), loop).result(30)
        counted[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code in OF_CHARGERS, (
            f"{case.as_curl_command()}\n{answer.status_code} {answer.text}"
        )

    return send


def _authority() -> pki.CertificateAuthority:
    return pki.make_root("Test CPO", now=datetime.now(UTC), lifetime=timedelta(days=1))
