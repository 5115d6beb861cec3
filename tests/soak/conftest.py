"""A stage for each run: a database, a broker that keeps sessions, a consumer that has one, and a forker of nodes."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Struct
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from tests.harness import servers
from tests.harness.servers import Mosquitto
from tests.harness.soak.audit import AuditResult
from tests.harness.soak.campaign import Losses, Stage
from tests.harness.soak.consumer import Consumer
from tests.harness.soak.load import Load
from tests.harness.soak.node_forker import NodeForker, forked
from tests.harness.soak.own_postgres import OwnPostgres, own_postgres

NURSERY = pytest.StashKey[NodeForker]()
# A consumer that is away or slow is to lose nothing.
DURABLE = ("persistence true", "max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true")
# And a killed broker is to come back with its sessions: it writes them down at every change, which is slow.
CRASH_PROOF = ("autosave_on_changes true", "autosave_interval 1")


@pytest.fixture
def durable_broker(request: pytest.FixtureRequest, broker: Any) -> Any:
    """Mosquitto where it is installed, with what a durable consumer needs; else the embedded broker."""
    if servers.mosquitto_program() is None:
        return broker
    start: Callable[..., Mosquitto] = request.getfixturevalue("mosquitto")
    return start(*DURABLE)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Everything is imported, nothing runs yet: the moment to fork."""
    if any(Path(__file__).parent in item.path.parents for item in session.items):
        session.config.stash[NURSERY] = forked()


def pytest_unconfigure(config: pytest.Config) -> None:
    if NURSERY in config.stash:
        config.stash[NURSERY].end()


@pytest_asyncio.fixture
async def forker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NodeForker]:
    async with request.config.stash[NURSERY].for_a_test(tmp_path / "nodes.log") as running:
        yield running


@contextlib.contextmanager
def consuming(broker: Any, prefix: str) -> Iterator[Consumer]:
    consumer = Consumer(broker.host, broker.port_v5, prefix, f"{prefix.replace('/', '-')}-consumer")
    consumer.arrive()
    try:
        yield consumer
    finally:
        consumer.leave()


@pytest.fixture(scope="module")
def postgres(copy_cluster: Callable[[Path], None]) -> Iterator[OwnPostgres]:
    """A Postgres that a test may break; repaired, it serves the next test of the module."""
    with own_postgres(copy_cluster) as server:
        yield server


@pytest.fixture
def stage(
    forker: NodeForker, database_url: str, durable_broker: Any, topic_prefix: str, tmp_path: Path
) -> Iterator[Stage]:
    with consuming(durable_broker, topic_prefix) as consumer:
        yield Stage(forker, database_url, durable_broker, topic_prefix, tmp_path, consumer)


@pytest.fixture
def brokerage(
    forker: NodeForker,
    database_url: str,
    mosquitto: Callable[..., Mosquitto],
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Stage]:
    """A stage on a broker that may be killed."""
    broker = mosquitto(*DURABLE, *CRASH_PROOF)
    with consuming(broker, topic_prefix) as consumer:
        yield Stage(forker, database_url, broker, topic_prefix, tmp_path, consumer)


@pytest_asyncio.fixture
async def shaky(
    forker: NodeForker, postgres: OwnPostgres, durable_broker: Any, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    """A stage on a Postgres that may be broken."""
    url = await postgres.fresh_database()
    with consuming(durable_broker, topic_prefix) as consumer:
        yield Stage(forker, url, durable_broker, topic_prefix, tmp_path, consumer)


# --- the figures of `make soak` --------------------------------------------------------------------------


class Figures(Struct, frozen=True):
    """Of one run."""

    what: str
    took_s: float
    losses: Losses
    load: Load
    books: AuditResult


FIGURES = pytest.StashKey[list[Figures]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(config: pytest.Config) -> None:
    if figures := config.stash[FIGURES]:
        console = Console(width=220)
        for table in (_runs(figures), _points(figures)):
            console.print(table)


def _runs(figures: list[Figures]) -> Table:
    heads = (
        "run", "times", "took", "chargers", "transactions", "meter values", "kWh", "cost", "events",
        "repeated", "resent", "replayed", "longest without a line", "adversary's transactions", "audited", "wrong",
    )  # fmt: skip
    table = Table(*heads, title="Three books compared", box=MARKDOWN)
    for one in figures:
        table.add_row(
            one.what,
            str(one.losses.total),
            f"{one.took_s:.0f} s",
            str(one.load.chargers),
            f"{one.books.transactions:,}",
            f"{one.books.readings:,}",
            f"{one.books.energy_wh / 1000:,.3f}",
            f"{one.books.cost:,}",
            f"{one.books.events:,}",
            str(one.books.duplicates),
            str(one.books.resends),
            str(one.books.replayed),
            f"{one.load.longest_outage_s:.1f} s",
            f"{one.books.adversarial:,}",
            f"{one.books.audited:,}",
            str(len(one.books.problems)),
        )
    return table


def _points(figures: list[Figures]) -> Table:
    table = Table("what died, and when", "times", title="Deaths by point", box=MARKDOWN)
    for one in figures:
        for point, times in one.losses.by_point.items():
            table.add_row(f"{one.what}: {point}" if point not in one.what else point, str(times))
    return table
