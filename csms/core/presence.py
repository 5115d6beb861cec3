"""Presence of chargers: connections, boots, signs of life."""

from msgspec.structs import asdict, replace

from csms.core import events, reports, session_register
from csms.core.records import Charger, ChargerState
from csms.core.session_register import SessionRegister
from csms.core.work import Work


def ensure_charger(work: Work, charger_id: str) -> None:
    """Create the charger's rows if it has none.

    For reports that need only the state's row, the charger's own is not loaded: where one exists, so does the other.
    """
    if charger_id not in work.states or charger_id in work.chargers:
        _charger(work, charger_id)


def _charger(work: Work, charger_id: str, protocol: str = "ocpp1.6") -> Charger:
    """Return the charger's row, creating it for an unknown charger.

    An unknown OCPP charger is Pending unless enrollment is open. A bridge's chargers were configured by an operator.
    """
    charger = work.chargers.get(charger_id)
    if charger is None:
        pending = protocol.startswith("ocpp") and work.policy.enrollment != "open"
        charger = Charger(id=charger_id, protocol=protocol, enrollment="Pending" if pending else "Accepted")
        work.put(charger)
    if charger_id not in work.states:
        work.put(ChargerState(charger_id=charger_id))
    return charger


def connected(work: Work, r: reports.Connected) -> reports.Held:
    charger = _charger(work, r.charger_id, r.protocol)
    if charger.protocol != r.protocol:
        charger = replace(charger, protocol=r.protocol)
        work.put(charger)
    state = work.states[r.charger_id]
    held = replace(
        state,
        generation=state.generation + 1,
        online=True,
        node=r.node,
        remote_address=r.remote_address,
        connected_at=work.now,
        last_seen_at=work.now,
    )
    work.put(held)
    if work.policy.connection_events:
        work.emit(r.charger_id, events.connected(held, r.protocol))
    return reports.Held(
        generation=held.generation,
        enrollment=charger.enrollment,
        previous_node=state.node if state.online else None,
        vendor=charger.vendor,
        model=charger.model,
        firmware_version=charger.firmware_version,
        time_zone=charger.time_zone,
    )


def disconnected(work: Work, r: reports.Disconnected) -> None:
    state = work.states[r.charger_id]
    if state.generation == r.generation and state.node == r.node:
        work.put(replace(state, online=False, last_seen_at=work.now))
        if work.policy.connection_events:
            work.emit(r.charger_id, events.disconnected(state, r.reason, work.now))


def seen(work: Work, r: reports.Seen) -> None:
    work.put(replace(work.states[r.charger_id], last_seen_at=work.now))


def boot(work: Work, r: reports.Boot) -> reports.Booted:
    before = work.chargers[r.charger_id]
    if r.register_scale != 1 and (before.vendor is None or before.firmware_version is None):
        rescale_registers(work, r.charger_id, r.register_scale)
    told = asdict(r)
    del told["charger_id"], told["register_scale"]
    charger = replace(before, **told, booted_at=work.now)
    work.put(charger)
    if work.policy.connection_events:
        work.emit(r.charger_id, events.booted(charger, next(work.numbers)))
    accepted = charger.enrollment == "Accepted"
    interval_s = charger.heartbeat_interval_s or work.policy.heartbeat_interval_s
    return reports.Booted(
        status=charger.enrollment,
        interval_s=interval_s if accepted else work.policy.retry_interval_s,
        time_zone=charger.time_zone,
    )


def rescale_registers(work: Work, charger_id: str, scale: int) -> None:
    """Read the registers of running sessions and connectors as those that follow: the charger was not identified before.

    They stay where a charger has another firmware now: they were read as the firmware of then meant them.
    """
    for transaction in work.open_transactions(charger_id):
        meter_start_wh = _rescaled(transaction.meter_start_wh, scale)
        register = _rescaled_session(work, transaction.register, scale)
        work.put(replace(transaction, meter_start_wh=meter_start_wh, register=register))
    for connector in [c for c in work.connectors.values() if c.charger_id == charger_id]:
        energy_wh, register = connector.energy_wh, _rescaled_session(work, connector.register, scale)
        if energy_wh is not None:
            energy_wh = _rescaled(energy_wh, scale)
        if (energy_wh, register) != (connector.energy_wh, connector.register):
            work.put(replace(connector, energy_wh=energy_wh, register=register))


def _rescaled(register_wh: int, scale: int) -> int:
    """Return a register on the new scale; one that no column could hold was none, and stays."""
    return register_wh * scale if abs(register_wh) * scale < 2**63 else register_wh


def _rescaled_session(work: Work, register: SessionRegister | None, scale: int) -> SessionRegister | None:
    return None if register is None else session_register.rescaled(register, scale, work.now)
