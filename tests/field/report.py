"""docs/energy.md, made from the cases: `python -m tests.field.report [--write]`."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from tests.field import cases
from tests.field.cases import Case, Expected

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
DOCUMENT = REPOSITORY / "docs" / "energy.md"
EXPLANATION = HERE / "explanation.md"
_HEADER = ("| case | energy | source | bill | anomalies | seen in |", "|---|---|---|---|---|---|")


def render() -> str:
    """The document: the explanation, then a table for each file of cases."""
    kinds = [cases.load(name) for name in cases.kinds()]
    count = sum(len(kind.case) for kind in kinds)
    lines = [EXPLANATION.read_text(encoding="utf-8").replace("{count}", str(count))]
    for kind in kinds:
        lines += [f"### {kind.title}", "", *kind.about.strip().splitlines(), "", *_HEADER]
        lines += [_row(case) for case in kind.case]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(case: Case) -> str:
    title = case.title[:1].upper() + case.title[1:]
    if case.not_yet:
        title += f" (**not yet**: {case.not_yet})"
    expected = case.expected
    cells = [
        title,
        _each(_energy(one) for one in expected) or "no session",
        _each(one.source or "" for one in expected),
        _each(_bill(one, case) for one in expected),
        _each(", ".join(f"`{word}`" for word in sorted(one.anomalies)) for one in expected),
        case.source,
    ]
    if case.quarantine:
        cells[3] = f"{cells[3]}; quarantine".removeprefix("; ")
    return f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |"


def _each(texts: Iterable[str]) -> str:
    found = [text or "–" for text in texts]
    return " … ".join(found) if any(text != "–" for text in found) else ""


def _energy(one: Expected) -> str:
    return "not known yet" if one.energy_wh is None else f"{one.energy_wh / 1000:g} kWh"


def _bill(one: Expected, case: Case) -> str:
    if one.state == "open":
        return "runs"
    currency = "USD" if case.tariff is None else case.tariff.get("currency", "EUR")
    words = [] if one.cost is None else [f"{one.cost} {currency}"]
    words += [f"{one.minutes:g} min"] if one.minutes is not None else []
    words += [f"**{one.state}**"] if one.state in {"held", "void"} else []
    words += ["inferred"] if one.inferred else []
    words += [f"revision {one.revision}"] if one.revision > 1 else []
    return ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.field.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(REPOSITORY)}")
    if parser.parse_args().write:
        DOCUMENT.write_text(render(), encoding="utf-8")
    else:
        print(render())


if __name__ == "__main__":
    main()
