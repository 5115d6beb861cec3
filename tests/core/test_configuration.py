import pytest

from csms.core.configuration import configuration_in_sync, integer_value, request_chunks, same_value
from csms.core.device_state import ConfigurationKey
from tests.harness.command_answers import answered
from tests.harness.fake_store import FakeStore, at


@pytest.fixture
def desk():
    return FakeStore()


def report(*keys, unknown=()):
    items = [{"key": key, "readonly": False, "value": value} for key, value in keys]
    return answered("GetConfiguration", {}, {"configurationKey": items, "unknownKey": list(unknown)})


def change(key, value, status="Accepted"):
    return answered("ChangeConfiguration", {"key": key, "value": value}, {"status": status})


def rows(desk):
    return {row.name: row for row in desk.recall(ConfigurationKey)}


def test_reported_values_and_unknown_keys_are_kept(desk):
    desk.tell(report(("HeartbeatInterval", "300"), ("Empty", None), unknown=["Nonsense"]))
    found = rows(desk)
    assert (found["HeartbeatInterval"].value, found["HeartbeatInterval"].readonly) == ("300", False)
    assert found["Empty"].supported
    assert found["Empty"].value is None
    assert not found["Nonsense"].supported


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (True, "true"),
        (False, "false"),
        (1.5, "1.5"),
        (30, "30"),
        (["A", "W"], '["A","W"]'),
        (None, None),
        ("True", "True"),
    ],
)
def test_a_value_that_is_no_text_is_kept_as_the_charger_wrote_it(desk, value, kept):
    desk.tell(report(("K", value)))
    assert rows(desk)["K"].value == kept


def test_malformed_names_of_keys_are_ignored(desk):
    desk.tell(report(("", "1"), ("k" * 501, "1"), (7, "1"), unknown=["", None, "k" * 501]))
    assert rows(desk) == {}


def test_keys_are_compared_without_regard_to_case(desk):
    desk.tell(report(("heartbeatinterval", "1")))
    desk.tell(change("HeartbeatInterval", "2"))
    (row,) = desk.recall(ConfigurationKey)
    assert (row.value, row.desired) == ("1", "2")


def test_a_reported_value_other_than_the_desired_is_not_in_sync(desk):
    desk.tell(change("K", "true"))
    assert configuration_in_sync(rows(desk)["K"]) is None
    desk.now = at(1)
    desk.tell(report(("K", "True")))
    assert configuration_in_sync(rows(desk)["K"]) is True
    desk.now = at(2)
    desk.tell(report(("K", "false")))
    assert configuration_in_sync(rows(desk)["K"]) is False


def test_a_required_reboot_ends_when_the_desired_value_is_reported(desk):
    desk.tell(change("K", "2", "RebootRequired"))
    assert rows(desk)["K"].reboot_required
    desk.now = at(1)
    desk.tell(report(("K", "1")))
    assert rows(desk)["K"].reboot_required
    desk.tell(report(("K", "2")))
    assert not rows(desk)["K"].reboot_required


def test_a_refused_change_is_not_desired(desk):
    desk.tell(report(("K", "1")))
    desk.tell(change("K", "2", "Rejected"))
    desk.tell(change("L", "2", "NotSupported"))
    assert rows(desk)["K"].desired is None
    assert not rows(desk)["L"].supported


def test_blanks_and_the_case_of_booleans_do_not_count():
    assert same_value("Energy.Active.Import.Register, SoC", "Energy.Active.Import.Register,SoC")
    assert not same_value("a", "A")
    assert not same_value(None, "")


def test_numbers_are_read_from_reported_values(desk):
    desk.tell(report(("GetConfigurationMaxKeys", " 3 "), ("Odd", "³")))
    assert integer_value(desk.recall(ConfigurationKey), "getconfigurationmaxkeys") == 3
    assert integer_value(desk.recall(ConfigurationKey), "Odd") is None
    assert integer_value([], "GetConfigurationMaxKeys") is None


def test_requests_have_at_most_as_many_keys_as_a_charger_accepts():
    assert request_chunks(["a", "b", "c"], 2) == [["a", "b"], ["c"]]
    assert request_chunks(["a", "b"], None) == [["a", "b"]]
    assert request_chunks([], 2) == [[]]
