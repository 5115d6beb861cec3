"""The probes of docs/resilience.md, and that the page says what they show."""

from tests.e2e.conftest import Node
from tests.harness.charging_site import OcppSite
from tests.harness.field_probes import PAGE, PROBES, page, peers, run_here


async def test_all_are_answered_and_kept_and_the_page_says_so(shared_node: Node) -> None:
    results = await run_here(lambda: OcppSite(shared_node))
    assert [result.title for result in results if not result.good] == []
    assert [
        probe.title for probe, result in zip(PROBES, results, strict=True) if probe.keeps and not result.kept
    ] == []
    assert len({probe.title for probe in PROBES}) == len(PROBES) >= 30
    assert PAGE.read_text() == page(results, peers()), "python -m tests.harness.field_probes --write"
