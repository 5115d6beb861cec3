"""Nothing that is published escapes `make homeassistant`."""

from bridges import BRIDGES
from bridges.charge_amps.discovery import entities
from tests.harness.homeassistant_discovery import check
from tests.homeassistant.payloads import payloads


def test_every_kind_of_charger_and_every_entity_is_shown_to_home_assistant() -> None:
    made = list(payloads())
    assert {one["charger"] for one in made} == {"ocpp", *BRIDGES}
    assert {one["topic"].split("/")[-2] for one in made if one["by"] == "charge_amps"} == {
        key for _, key, _ in entities()
    }


def test_all_of_it_keeps_the_rules_written_down_here() -> None:
    for one in payloads():
        check(one["topic"], one["config"])
