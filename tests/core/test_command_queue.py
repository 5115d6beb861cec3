from datetime import timedelta
from typing import Any

import pytest

from csms.core.command_queue import (
    MAX_ATTEMPTS,
    next_attempt,
    queue_problems,
    reconcile_request,
    reconnect_triggers,
    retry_class,
    was_carried_out,
)
from tests.harness.fake_store import NOW, at
from tests.harness.narrowing import present

CHANGE = {"key": "K", "value": "true"}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("GetConfiguration", "safe"),
        ("TriggerMessage", "safe"),
        ("ChangeConfiguration", "reconcile"),
        ("SetChargingProfile", "reconcile"),
        ("Reset", "manual"),
        ("RemoteStartTransaction", "manual"),
        ("UnlockConnector", "manual"),
        ("UpdateFirmware", "manual"),
        ("DataTransfer", "manual"),
    ],
)
def test_every_action_has_a_retry_class(action, expected):
    assert retry_class(action) == expected


def test_a_command_without_an_answer_is_repeated_only_where_that_is_safe():
    assert next_attempt("Reset", "no_answer", 1, NOW, None) is None
    assert present(next_attempt("GetConfiguration", "no_answer", 1, NOW, None)).at == NOW + timedelta(
        seconds=10
    )
    assert present(next_attempt("ChangeConfiguration", "no_answer", 2, NOW, None)).at == NOW + timedelta(
        seconds=20
    )
    assert next_attempt("GetConfiguration", "no_answer", MAX_ATTEMPTS, NOW, None) is None


def test_a_command_that_was_not_sent_waits_until_it_expires():
    assert present(next_attempt("Reset", "not_sent", 99, NOW, at(1))).at == NOW + timedelta(seconds=5)
    assert next_attempt("Reset", "not_sent", 1, NOW, NOW + timedelta(seconds=5)) is None


@pytest.mark.parametrize("state", ["answered", "refused", "failed", "cancelled"])
def test_an_ended_command_is_not_repeated(state):
    assert next_attempt("GetConfiguration", state, 1, NOW, None) is None


def test_a_password_is_not_queued():
    assert queue_problems("ChangeConfiguration", {"key": "AuthorizationKey", "value": "x"}) != []
    assert queue_problems("ChangeConfiguration", CHANGE) == []


@pytest.mark.parametrize("action", ["RemoteStartTransaction", "RemoteStopTransaction"])
def test_starts_and_stops_of_rental_stations_are_not_queued(action):
    assert queue_problems(action, {}, "coinop-mqtt") != []
    assert queue_problems(action, {}) == []
    assert queue_problems("ChangeAvailability", {}, "coinop-mqtt") == []


def test_before_a_second_attempt_the_charger_is_asked():
    assert reconcile_request("ChangeConfiguration", CHANGE) == ("GetConfiguration", {"key": ["K"]})
    assert reconcile_request("SendLocalList", {"listVersion": 4}) == ("GetLocalListVersion", {})
    assert reconcile_request("ChangeAvailability", {}) is None
    answer = {"configurationKey": ["K", {"key": "other", "value": "x"}, {"key": "k", "value": "True"}]}
    assert was_carried_out("ChangeConfiguration", CHANGE, answer)
    assert not was_carried_out("ChangeConfiguration", CHANGE | {"value": "false"}, answer)
    assert not was_carried_out("ChangeConfiguration", CHANGE, {"configurationKey": None})
    assert was_carried_out("SendLocalList", {"listVersion": 4}, {"listVersion": 4})
    assert not was_carried_out("SendLocalList", {"listVersion": 4}, {})
    assert not was_carried_out("ChangeAvailability", {}, {})


def asked(**given):
    known: dict[str, Any] = {
        "now": NOW,
        "connected_at": NOW,
        "booted_at": None,
        "asked_at": None,
        "unsupported": (),
    }
    found = reconnect_triggers(**(known | given))
    return [payload["requestedMessage"] for payload in found]


def test_a_charger_that_reconnects_without_a_boot_is_asked_for_one():
    assert asked() == ["BootNotification", "StatusNotification"]
    assert asked(booted_at=at(-1)) == ["BootNotification", "StatusNotification"]
    assert asked(booted_at=at(0)) == []
    assert asked(connected_at=None) == []


def test_a_charger_without_triggers_is_not_asked():
    assert asked(unsupported={"TriggerMessage"}) == []
    assert asked(unsupported={"TriggerMessage/BootNotification"}) == ["StatusNotification"]


def test_a_charger_is_not_asked_again_within_ten_minutes():
    assert asked(asked_at=at(-9)) == []
    assert asked(asked_at=at(-10)) == ["BootNotification", "StatusNotification"]
