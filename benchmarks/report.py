"""Results as tables: on the terminal, and in docs/benchmarks.md around the text of benchmarks/page.md."""

import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import machine
from benchmarks.results import Result, Size
from benchmarks.servers import CSMS, IN_MEMORY, ORM, ROOT, Services

PAGE = ROOT / "docs" / "benchmarks.md"
_TEMPLATE = Path(__file__).parent / "page.md"
_NAMES = {"meter": "MeterValues, 6 samples", "pairs": "Start and stop", "status": "StatusNotification",
          "heartbeat": "Heartbeat", "mix": "mix of many chargers"}  # fmt: skip
_HEADS = {
    "rate": "messages/s",
    "server_us": "server µs",
    "postgres_us": "Postgres µs",
    "broker_us": "broker µs",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "reply_p50_ms": "reply p50 ms",
    "reply_p99_ms": "reply p99 ms",
    "told_p50_ms": "frame → MQTT p50 ms",
    "told_p99_ms": "frame → MQTT p99 ms",
    "kib": "KiB per connection",
    "all_s": "all booted, s",
    "median_s": "median s",
    "refused_once": "refused once",
    "refused_more": "refused more than once",
    "server_ms_each": "server ms per charger",
    "server_core": "CPU cores used by the bridge",
    "behind_s": "behind at the end, s",
    "most_behind": "most packets behind",
    "readings_each": "readings stored per station",
    "complete": "nothing lost",
    "good": "good",
    "foreign": "foreign CPU",
}


def table(results: Sequence[Result]) -> str:
    """Markdown; columns are what the results have."""
    names = [name for name in _HEADS if any(name in result.figures for result in results)]
    lines = [
        "| | | " + " | ".join(_HEADS[name] for name in names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for result in results:
        cells = [_cell(name, result.figures.get(name)) for name in names]
        lines.append(
            f"| {_NAMES.get(result.scenario, result.scenario)} | {result.system} | {' | '.join(cells)} |"
        )
    lines += [f"\n{r.system}, {_NAMES.get(r.scenario, r.scenario)}: {r.note}." for r in results if r.note]
    return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in {"complete", "good"}:
        return "yes" if value else "NO"
    if name == "foreign":
        return f"{value:.0%}"
    if name in {"rate", "refused_once", "refused_more", "most_behind"}:
        return f"{value:,.0f}"
    if name == "server_core":
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def ratios(results: Sequence[Result]) -> str:
    """Return the ratios of csms to the other systems, measured in the same session."""
    lines = ["| | against | rate | server CPU per message |", "|---|---|---:|---:|"]
    found = {(result.scenario, result.system): result.figures for result in results}
    for (scenario, system), ours in found.items():
        if system != CSMS or "rate" not in ours:
            continue
        for peer in (IN_MEMORY, ORM):
            theirs = found.get((scenario, peer))
            if theirs:
                rate = ours["rate"] / theirs["rate"]
                less = theirs["server_us"] / ours["server_us"]
                lines.append(
                    f"| {_NAMES.get(scenario, scenario)} | {peer} | {rate:.1f} × | {less:.1f} × less |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def conditions(services: Services, size: Size, seconds: float) -> str:
    """Return where, when and how the figures were measured."""
    packages = ", ".join(
        f"{name} {version(name)}"
        for name in ("ocpp", "websockets", "uvloop", "asyncpg", "SQLAlchemy", "aiomqtt")
    )
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, revision {revision or 'unknown'}, {machine.described()}; Postgres"
        f" {services.postgres_version}, {services.broker}, {packages}. Rounds: {size.rounds} of {size.seconds:g} s,"
        f" in which the systems run in turns. Duration: {seconds / 60:.0f} minutes."
    )


def write(sections: Mapping[str, Sequence[Result]], where: str) -> None:
    page = _TEMPLATE.read_text()
    rates = sections.get("rates", ())
    page = page.replace("{conditions}", where).replace("{ratios}", ratios(rates))
    for name in ("rates", "fan-out", "latency", "memory", "storm", "growth", "coin-op"):
        results = sections.get(name)
        page = page.replace(f"{{{name}}}", table(results) if results else "not measured in this run")
    PAGE.write_text(page)
