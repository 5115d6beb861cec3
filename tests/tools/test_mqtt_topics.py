"""The table of topics: its page and the access list are those of the code, and no topic of the code is missing."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.harness.servers import REPOSITORY
from tools import mqtt_contract, mqtt_topics
from tools.mqtt_topics import ROLES, TOPICS, VENDOR_TOPICS, access
from tools.source import Module, modules

KNOWN = [entry.filter for entry in (*TOPICS, *VENDOR_TOPICS)]
ROOTS = {name.split("/")[0] for name in KNOWN if not name.startswith("/")}
LOOKS_LIKE_A_TOPIC = re.compile(r"/?[\w+-]+(/[\w+#-]+)+/?")
TAKES_A_TOPIC = {"listen", "_listen", "subscribe", "publish", "checked_subscribe"}
# What begins as a topic does and is none.
NO_TOPICS = {"csms/+", "hems/+"}


def text(node: ast.expr | None) -> str | None:
    """A string, or a formatted one with `+` for each of its values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "+" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and (left := text(node.left)) is not None:
        return f"{left}{text(node.right) or '+'}"
    return None


def topic_arguments(tree: ast.AST) -> Iterator[str]:
    """The literal topics that are subscribed to or published on, also below a new first level."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = node.args[0] if name in TAKES_A_TOPIC and node.args else None
        if name == "MqttMessage":
            given = next((keyword.value for keyword in node.keywords if keyword.arg == "topic"), None)
        if (found := text(given)) is not None:
            yield found


def topics_of(module: Module) -> set[str]:
    found = set(topic_arguments(module.tree))
    for node in ast.walk(module.tree):
        written = text(node) if isinstance(node, ast.expr) else None
        if (
            written is not None
            and LOOKS_LIKE_A_TOPIC.fullmatch(written)
            and written.strip("/").split("/")[0] in ROOTS
        ):
            found.add(written)
    return found - NO_TOPICS


def is_known(topic: str) -> bool:
    """Whether it is a topic of the table, or the beginning of one. A value may stand for several levels."""
    if not topic.strip("+/"):
        return True  # values only: the place where they are made is searched as well
    pattern = re.escape(topic.rstrip("/")).replace(r"\+", ".*").replace(r"\#", ".+")
    return any(
        re.fullmatch(f"{pattern}(/.+)?", name) or re.fullmatch(name.replace("+", "[^/]+"), topic)
        for name in KNOWN
    )


def test_the_page_and_the_access_list_are_those_of_the_table():
    assert mqtt_topics.differing(REPOSITORY) == [], "run: python -m tools.mqtt_topics --write"


def test_every_topic_in_the_code_is_in_the_table():
    found = {
        topic: module.name
        for module in modules(REPOSITORY)
        if module.name.startswith(("csms.", "bridges.")) and not module.name.startswith("csms.embedded")
        for topic in topics_of(module)
    }
    assert {topic: name for topic, name in found.items() if not is_known(topic)} == {}
    # The search finds what it should find.
    assert {
        "charge-amps/+/+/plan",
        "charger/#",
        "csms/nodes/+/+",
        "csms/service/+/status",
        "csms/state/+/+",
        "hems/ocpp/+/schedule/+",
        "ocpp/+/+/+",
        "rentals/+/live",
        "+/status",
        "/BLEWIFI/Chargers/+",
        "energy_prices/sensor/price_import/attributes",
    } <= found.keys()


@pytest.mark.parametrize(
    "line",
    [
        'node.listen("lamps/+/said")',
        'node.publish(f"rentals/{charger}/door", b"")',
        'MqttMessage(topic=f"csms/nodes/{node}/other", body=b"")',
        'TOPIC = "hems/heat-pump/set"',
        'link.subscribe("charger/" + station + "/firmware", read)',
    ],
)
def test_a_topic_that_is_not_in_the_table_is_found(line, tmp_path):
    module = Module(path=tmp_path / "new.py", text=line, tree=ast.parse(line))
    assert [topic for topic in topics_of(module) if not is_known(topic)]


def test_the_contract_is_a_part_of_the_table():
    addresses = [entry.address for entry in TOPICS]
    assert {entry.address for entry in mqtt_contract.CONTRACT} <= set(addresses)
    assert len(addresses) == len(set(addresses))
    for entry in TOPICS:
        assert (entry.writes | entry.reads) <= set(ROLES)
        # What is written by no role, or read by no role, is a mistake; but the protocol stream is off by default.
        assert entry.writes
        assert entry.reads or entry.address.startswith("ocpp/")


def test_only_nodes_command_chargers_and_write_bills():
    nodes = {"csms", "coin-op", "ev-meter", "charge-amps"}
    assert access("csms/nodes/a/commands", reading=False) == nodes
    assert access("csms/billing/CP1/session_cost", reading=False) == nodes
    assert access("charger/S1/commands", reading=False) == {"csms", "coin-op"}
    assert access("ocpp/messages/CP1/Authorize", reading=True) == frozenset()
