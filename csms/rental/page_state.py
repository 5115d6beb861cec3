"""What the rental page shows at one moment: a pure function of the records and the station's live status."""

from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct

from csms.core.live_status import LiveStatus
from csms.core.pricing import Cost, session_cost
from csms.core.records import Connector, Transaction
from csms.db.accounts import AccountView, RentalView
from csms.rental.station_watch import LiveStation

OPEN, STOP = "open", "stop"
_RENTED: Final = frozenset({"busy", "charging", "completed"})
_STATE_OF_STATUS: Final = {"Preparing": "busy", "Charging": "charging", "SuspendedEV": "completed"}
_RECEIPT_S: Final = 900
# A renter is reminded to plug in, to unplug and shut the door, and to call support.
_PLUG_IN_S, _UNPLUG_S, _SUPPORT_S = 300, 120, 900


class RentalNumbers(Struct, frozen=True, kw_only=True):
    """A rental so far, or its receipt. The cost is computed by the function that computes the bill."""

    time_s: int
    energy_wh: int
    power_w: float | None = None
    cost: Cost | None = None


class PageState(Struct, frozen=True, kw_only=True):
    """`state` is the id of the headline, `messages` are those of the sentences below it, `button` is what can be done.

    `final`: the numbers are a receipt, so that no power is shown.
    """

    state: str
    messages: tuple[str, ...] = ()
    button: str | None = None
    numbers: RentalNumbers | None = None
    final: bool = False

    @property
    def key(self) -> str:
        """Two states with the same key differ in their numbers only."""
        return "-".join(
            (self.state, *self.messages, self.button or "", "n" if self.numbers else "", str(self.final)[0])
        )


def page_state(
    view: RentalView,
    account: AccountView,
    station: LiveStation,
    *,
    now: datetime,
    pending: str | None = None,
    failure: str | None = None,
) -> PageState:
    """Return the page for one user.

    `pending` is the button whose command is under way, `failure` the message of a command that failed.
    """
    me = account.account.id
    running = view.running if view.running is not None and view.running.id_tag == me else None
    failures = () if failure is None else (failure,)
    live = station.status
    if live is None or not station.fresh:
        if running is None:
            if station.silent:
                return PageState(state="silent", messages=("M2",))
            return PageState(state="asking")
        # The last numbers that are known; the rental can be stopped all the same.
        numbers = _on_record(view, running)
        if live is not None and live.uid == me and live.time_s is not None:
            numbers = _live_numbers(live, running)
        return PageState(
            state=_state_on_record(view),
            messages=("M2", *failures) if station.silent else failures,
            button=STOP if pending is None else None,
            numbers=numbers,
        )
    if live.status in _RENTED or live.status == "done":
        if live.uid != me:
            return PageState(state="occupied", messages=("M1",))
        if live.status == "done":
            return PageState(
                state="done", messages=_after_the_end(view, now), numbers=_receipt(view, now), final=True
            )
        return _mine(live, running, account, view.debited_minor, pending=pending, failures=failures)
    if view.running is not None and running is None:
        return PageState(state="occupied", messages=("M1",))
    if live.status == "init":
        return PageState(state="starting_up")
    return _free(view, account, now, pending=pending, failures=failures)


def _mine(
    live: LiveStatus,
    running: Transaction | None,
    account: AccountView,
    debited_minor: int,
    *,
    pending: str | None,
    failures: tuple[str, ...],
) -> PageState:
    numbers = _live_numbers(live, running)
    messages = list(failures)
    if live.status == "busy" and numbers.time_s >= _PLUG_IN_S:
        messages.append("M6")
    elif live.status == "completed":
        messages.append("M3")
    if numbers.cost is not None and numbers.cost.currency == account.account.currency:
        # What dynamic debits have taken already was there when the rental began.
        balance = account.account.balance_minor + debited_minor
        if numbers.cost.amount_minor >= balance:
            messages.append("all_spent")
        elif numbers.cost.amount_minor * 5 >= balance * 4:
            messages.append("most_spent")
    return PageState(
        state="stopping" if pending == STOP else live.status,
        messages=tuple(messages),
        button=STOP if pending is None else None,
        numbers=numbers,
    )


def _free(
    view: RentalView, account: AccountView, now: datetime, *, pending: str | None, failures: tuple[str, ...]
) -> PageState:
    connector = _connector(view, 1)
    receipt = _receipt(view, now)
    if pending == OPEN:
        return PageState(state="opening")
    if connector is not None and connector.status == "Faulted":
        door = connector.error_code == "ConnectorLockFailure"
        return PageState(state="not_now", messages=("M4",) if door else ())
    if view.charger.charger.enrollment != "Accepted":
        return PageState(state="not_now")
    if account.account.blocked:
        return PageState(state="free", messages=("blocked",))
    if account.available_minor <= 0:
        return PageState(state="free", messages=("M5",), numbers=receipt, final=True)
    return PageState(state="free", messages=failures, button=OPEN, numbers=receipt, final=True)


def _after_the_end(view: RentalView, now: datetime) -> tuple[str, ...]:
    """Ask the renter to unplug and shut the door, more urgently as time passes since the end of the rental."""
    ended_at = None if view.last is None or view.running is not None else view.last.stop_received_at
    since_s = 0.0 if ended_at is None else (now - ended_at).total_seconds()
    if since_s < _UNPLUG_S:
        return ("M4",)
    return ("M4", "unplug") if since_s < _SUPPORT_S else ("M4", "unplug", "call_support")


def _live_numbers(live: LiveStatus, running: Transaction | None) -> RentalNumbers:
    time_s, energy_wh = live.time_s or 0, int((live.energy_wh or 0) + 0.5)
    cost = None if running is None else session_cost(running.tariff, energy_wh, Decimal(time_s))
    return RentalNumbers(time_s=time_s, energy_wh=energy_wh, power_w=live.power_w, cost=cost)


def _on_record(view: RentalView, running: Transaction) -> RentalNumbers:
    connector = _connector(view, running.connector_id)
    energy_wh, at = 0, running.started_at
    if connector is not None and connector.reading_transaction_id == running.id:
        energy_wh = connector.session_wh(running.id) or 0
        at = connector.reading_at or at
    time_s = max(int((at - running.started_at).total_seconds()), 0)
    return RentalNumbers(
        time_s=time_s,
        energy_wh=energy_wh,
        cost=session_cost(running.tariff, energy_wh, Decimal(time_s)),
    )


def _connector(view: RentalView, connector_id: int) -> Connector | None:
    return next((c for c in view.charger.connectors if c.connector_id == connector_id), None)


def _state_on_record(view: RentalView) -> str:
    connector = _connector(view, 1)
    return _STATE_OF_STATUS.get(connector.status or "", "silent") if connector is not None else "silent"


def _receipt(view: RentalView, now: datetime) -> RentalNumbers | None:
    last = view.last
    if last is None or last.stop_received_at is None or last.cost is None:
        return None
    if (now - last.stop_received_at).total_seconds() > _RECEIPT_S:
        return None
    cost = Cost(amount=last.cost, amount_minor=last.cost_minor or 0, currency=last.tariff.currency)
    return RentalNumbers(time_s=int(last.duration_s or 0), energy_wh=last.energy_wh or 0, cost=cost)
