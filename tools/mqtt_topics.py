"""Every topic that csms uses: what it carries, who may write it and who may read it.

`python -m tools.mqtt_topics --write` writes the table in docs/mqtt.md and deploy/mosquitto.acl, `--check` (the default)
compares them, `--prefix home/csms` prints an access list for MQTT_TOPIC_PREFIX. tests/tools/test_mqtt_topics.py compares
the table with the code, tests/deploy/test_mosquitto_acl.py the access list with what a Mosquitto does.
"""

import argparse
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from tools.mqtt_contract import CONTRACT

DOCS_PAGE, ACL_FILE = Path("docs/mqtt.md"), Path("deploy/mosquitto.acl")
_BEGIN: Final = "<!-- topics: written by `python -m tools.mqtt_topics --write` -->"
_END: Final = "<!-- end of topics -->"

# Each role is a login of deploy/mosquitto.acl, but `station`: every station has its own login, which is its id.
ROLES: Final = {
    "csms": "`csms serve`, with the bridges of `CSMS_BRIDGES`",
    "coin-op": "`csms bridge coin_op`",
    "ev-meter": "`csms bridge ev_meter`",
    "charge-amps": "`csms bridge charge_amps`",
    "billing": "a consumer of business events",
    "hems": "an energy management system",
    "homeassistant": "Home Assistant",
    "prices": "the publisher of prices",
    "station": "a coin-op station",
}
STATION: Final = "station"
_NODES: Final = frozenset({"csms", "coin-op", "ev-meter", "charge-amps"})  # each bridge process is a node
_CHARGE_AMPS, _COIN_OP = frozenset({"csms", "charge-amps"}), frozenset({"csms", "coin-op"})
_CSMS, _BILLING, _HEMS = frozenset({"csms"}), frozenset({"billing"}), frozenset({"hems"})
_HOME, _PRICES, _STATION = frozenset({"homeassistant"}), frozenset({"prices"}), frozenset({STATION})
_NONE: Final[frozenset[str]] = frozenset()


class TopicAccess(Struct, frozen=True, kw_only=True):
    """A topic. A station's right ends at the topics with its own id in `{stationId}`. `bare`: MQTT_TOPIC_PREFIX does not
    precede it."""

    address: str
    content: str
    writes: frozenset[str] = _NONE
    reads: frozenset[str] = _NONE
    bare: bool = False
    retained: bool = False

    @property
    def filter(self) -> str:
        """The address as a topic filter."""
        return re.sub(r"\{\w+\}", "+", self.address)


def _contract() -> Iterable[TopicAccess]:
    """What csms publishes for others has its place, and its words, in the contract."""
    for entry in CONTRACT:
        reads = _NONE
        if entry.event_type is not None:
            reads = _BILLING | (_HOME if entry.name == "meter_reading" else _NONE)
        elif entry.retain:
            reads = _HOME
        yield TopicAccess(
            address=entry.address,
            content=entry.summary,
            writes=_CSMS if entry.name == "plan_state" else _NODES,
            reads=reads,
            retained=entry.retain,
        )


TOPICS: Final = (
    *_contract(),
    TopicAccess(
        address="csms/nodes/{node}/commands",
        content="Internal, signed: a command to a charger that the node holds.",
        writes=_NODES,
        reads=_NODES,
    ),
    TopicAccess(
        address="csms/nodes/{node}/results",
        content="Internal, signed: answers to commands of the node.",
        writes=_NODES,
        reads=_NODES,
    ),
    TopicAccess(
        address="csms/nodes/{node}/control",
        content="Internal, signed: another node holds a charger now.",
        writes=_NODES,
        reads=_NODES,
    ),
    *(
        TopicAccess(
            address=f"hems/{name}/schedule/{verb}", content=f"{what} {whose}.", writes=_HEMS, reads=readers
        )
        for name, whose, readers in (
            ("ocpp/{clientId}", "an OCPP charger", _CSMS),
            ("charge-amps/{connector}", "a Charge Amps connector", _CHARGE_AMPS),
        )
        for verb, what in (("set", "The times to charge of"), ("clear", "Forget the times to charge of"))
    ),
    TopicAccess(
        address="hems/ocpp/{clientId}/status",
        content="What the plan of an OCPP charger does.",
        writes=_CSMS,
        reads=_HEMS,
        retained=True,
    ),
    TopicAccess(
        address="hems/charge-amps/{connector}/status",
        content="What the schedule of a Charge Amps connector does.",
        writes=_CHARGE_AMPS,
        reads=_HEMS,
        retained=True,
    ),
    TopicAccess(
        address="charge-amps/{chargePoint}/{connector}/state",
        content="What Home Assistant shows of a Charge Amps connector.",
        writes=_CHARGE_AMPS,
        reads=_HOME,
        retained=True,
    ),
    TopicAccess(
        address="charge-amps/{chargePoint}/{connector}/plan",
        content="Internal: what the bridge has written into the vendor's cloud.",
        writes=_CHARGE_AMPS,
        reads=_CHARGE_AMPS,
        retained=True,
    ),
    TopicAccess(
        address="charger/{stationId}/status",
        content="A coin-op station's status.",
        writes=_STATION,
        reads=_COIN_OP,
    ),
    TopicAccess(
        address="charger/{stationId}/{uid}/status",
        content="The same, for a station's renter.",
        writes=_STATION,
        reads=_COIN_OP,
    ),
    TopicAccess(
        address="charger/{stationId}/commands",
        content="A command to a coin-op station. Who may write it opens its door.",
        writes=_COIN_OP,
        reads=_COIN_OP | _STATION,
    ),
    TopicAccess(
        address="rentals/{clientId}/watch",
        content="Internal, signed: a rental page shows the station.",
        writes=_CSMS,
        reads=_COIN_OP,
    ),
    TopicAccess(
        address="rentals/{clientId}/live",
        content="Internal, signed: live figures for rental pages.",
        writes=_COIN_OP,
        reads=_CSMS,
    ),
    TopicAccess(
        address="energy_prices/sensor/price_import/attributes",
        content="Prices of energy; `CSMS_PRICES_TOPIC`, `CHARGE_AMPS_PRICE_TOPIC`.",
        writes=_PRICES,
        reads=_CHARGE_AMPS,
        bare=True,
        retained=True,
    ),
    TopicAccess(
        address="homeassistant/{component}/{device}/{entity}/config",
        content="Discovery; `MQTT_HOMEASSISTANT_PREFIX`, `CHARGE_AMPS_HOMEASSISTANT_PREFIX`.",
        writes=_NODES,
        reads=_HOME,
        bare=True,
        retained=True,
    ),
    TopicAccess(
        address="homeassistant/status",
        content="Home Assistant's birth and last will, after which discovery is published again.",
        writes=_HOME,
        reads=_NODES,
        bare=True,
    ),
)

# At the vendor's broker, which has its own access list.
VENDOR_TOPICS: Final = (
    TopicAccess(
        address="/BLEWIFI/Chargers/{address}", content="A request to an EV-Meter charger.", bare=True
    ),
    TopicAccess(
        address="/BLEWIFI/users/{account}", content="The chargers' answers to an account.", bare=True
    ),
)


def access(topic: str, *, reading: bool) -> frozenset[str]:
    """Return the roles that may read, or write, a topic without MQTT_TOPIC_PREFIX; a station only where the id is its own."""
    return frozenset().union(
        *(
            entry.reads if reading else entry.writes
            for entry in TOPICS
            if re.fullmatch(entry.filter.replace("+", "[^/]+"), topic)
        )
    )


# --- the access list -------------------------------------------------------------------------------------

_HEAD = """\
# What each login may do: the table in docs/mqtt.md, "All topics". Written by `python -m tools.mqtt_topics --write`.
# With MQTT_TOPIC_PREFIX: `python -m tools.mqtt_topics --prefix YOUR/PREFIX`. What is not listed is denied.
# Logins are made by deploy/mosquitto-logins.sh.
"""
_STATIONS = """
# Stations. Each logs in with its id as user name, and has the topics with that id. A station cannot have the name of
# a login above: these are denied the topics.
"""
_OPTIONAL = {
    "billing": ("The protocol stream: every OCPP message of every charger.", "ocpp/"),
    "homeassistant": ("Where Home Assistant is the energy management system:", "hems/"),
}


def acl(prefix: str = "") -> str:
    """Return Mosquitto's access list."""

    front = f"{prefix}/" if prefix else ""

    def shown(entry: TopicAccess, role: str = "") -> str:
        own = entry.address.replace("{stationId}", "%u") if role == STATION else entry.address
        return ("" if entry.bare else front) + re.sub(r"\{\w+\}", "+", own)

    def lines(role: str) -> list[str]:
        word = "pattern" if role == STATION else "topic"
        kinds = {(True, False): "write", (False, True): "read", (True, True): "readwrite"}
        return [
            f"{word} {kinds[rights]} {shown(entry, role)}\n"
            for entry in TOPICS
            if (rights := (role in entry.writes, role in entry.reads)) in kinds
        ]

    parts = [_HEAD]
    for role, meaning in ROLES.items():
        if role == STATION:
            continue
        parts.append(f"\n# {meaning.replace('`', '')}\nuser {role}\n")
        # First, as the patterns below hold for every login.
        parts.append(f"topic deny {front}charger/{role}/#\n")
        parts.extend(lines(role))
        if role in _OPTIONAL:
            reason, start = _OPTIONAL[role]
            parts.append(f"# {reason}\n")
            parts.extend(
                f"# topic {'write' if 'hems' in entry.writes else 'read'} {shown(entry)}\n"
                for entry in TOPICS
                if entry.address.startswith(start)
            )
    return "".join([*parts, _STATIONS, *lines(STATION)])


# --- the page --------------------------------------------------------------------------------------------


def table() -> str:
    """Return the tables of docs/mqtt.md, between their marks."""
    rows = [
        f"| {_shown(entry)} | {_roles(entry.writes)} | {_roles(entry.reads)} | {entry.content} |"
        for entry in TOPICS
    ]
    roles = [f"| {_role(name)} | {meaning} |" for name, meaning in ROLES.items()]
    vendor = [f"| `{entry.address}` | {entry.content} |" for entry in VENDOR_TOPICS]
    return "\n".join(
        [
            _BEGIN,
            "",
            "| topic | may write | may read | content |",
            "|---|---|---|---|",
            *rows,
            "",
            "| role | client |",
            "|---|---|",
            *roles,
            "",
            "| topic at the broker of EV-Meter's vendor | content |",
            "|---|---|",
            *vendor,
            "",
            _END,
        ]
    )


def _shown(entry: TopicAccess) -> str:
    marks = [mark for mark, holds in (("retained", entry.retained), ("bare", entry.bare)) if holds]
    return f"`{entry.address}`" + (f" ({', '.join(marks)})" if marks else "")


def _role(name: str) -> str:
    return "its station" if name == STATION else f"`{name}`"


def _roles(roles: Collection[str]) -> str:
    if roles == _NODES:
        return "nodes"
    return ", ".join(_role(name) for name in ROLES if name in roles) or "–"


def files(root: Path = Path()) -> dict[Path, str]:
    """Return the files that this module writes, with the text that they should have."""
    page = (root / DOCS_PAGE).read_text()
    before, rest = page.split(_BEGIN)
    after = rest.split(_END)[1]
    return {DOCS_PAGE: before + table() + after, ACL_FILE: acl()}


def differing(root: Path = Path()) -> list[Path]:
    return [
        path
        for path, text in files(root).items()
        if not (root / path).is_file() or (root / path).read_text() != text
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mqtt_topics", description=__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help=f"write {DOCS_PAGE} and {ACL_FILE}")
    action.add_argument("--check", action="store_true", help="compare them, which is the default")
    action.add_argument("--prefix", help="print the access list for this MQTT_TOPIC_PREFIX")
    chosen = parser.parse_args()
    if chosen.prefix is not None:
        print(acl(chosen.prefix.strip("/")), end="")
        return 0
    changed = differing()
    for path in changed:
        if chosen.write:
            path.write_text(files()[path])
        print(f"{'written' if chosen.write else 'differs'}: {path}")
    return 1 if changed and not chosen.write else 0


if __name__ == "__main__":
    sys.exit(main())
