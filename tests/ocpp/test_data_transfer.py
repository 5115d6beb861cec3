from importlib import metadata

import pytest

from csms.core.reports import Transferred
from csms.ocpp import data_transfer
from csms.ocpp.data_transfer import Registry, Transfer
from tests.harness.servers import REPOSITORY


def answer(registry, vendor_id="Acme", message_id=None, data=None):
    return registry.answer(
        Transfer(charger_id="CP1", vendor_id=vendor_id, message_id=message_id, data=data)
    ).status


@pytest.fixture
def registry():
    registry = Registry()

    @registry.handler("Acme", "hello")
    def hello(transfer):
        return Transferred(status="Accepted", data=transfer.data)

    return registry


def test_an_unknown_vendor_or_message_is_answered_as_such(registry):
    assert answer(registry, "Other", "hello") == "UnknownVendorId"
    assert answer(registry, message_id="bye") == "UnknownMessageId"
    assert answer(registry) == "UnknownMessageId"


def test_a_handler_answers_for_its_vendor_in_any_case(registry):
    assert answer(registry, "ACME", "hello") == "Accepted"


def test_a_handler_without_message_takes_the_rest(registry):
    registry.register("Acme", None, lambda _: Transferred(status="Rejected"))
    assert answer(registry, message_id="bye") == "Rejected"
    assert answer(registry, message_id="hello") == "Accepted"


def test_a_handler_that_fails_rejects(registry):
    registry.register("Acme", "bug", lambda transfer: 1 / len(transfer.data))
    assert answer(registry, message_id="bug", data="") == "Rejected"


def test_a_second_handler_for_one_message_is_refused(registry):
    with pytest.raises(ValueError, match="acme/hello"):
        registry.register("acme", "hello", lambda _: Transferred(status="Accepted"))


def add_ours(registry):
    registry.register("Ours", None, lambda _: Transferred(status="Accepted"))


def test_installed_packages_register_their_handlers(monkeypatch, registry):
    entries = [
        metadata.EntryPoint(name="good", value=f"{__name__}:add_ours", group=data_transfer.ENTRY_POINT_GROUP),
        metadata.EntryPoint(name="bad", value="nowhere:nothing", group=data_transfer.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(data_transfer, "entry_points", lambda group: entries)
    assert registry.load_entry_points() == 1
    assert answer(registry, "Ours", "x") == "Accepted"


def test_the_sample_in_the_docs_works():
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    sample = {}
    exec(page.split("```python\n")[1].split("```")[0], sample)  # noqa: S102
    registry = Registry()
    sample["register"](registry)
    assert answer(registry, "com.example", "price", "1 kWh") == "Accepted"
