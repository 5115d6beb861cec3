"""`make bench`: everything; `make bench ARGS=--quick`: in a minute and a half, nothing written."""

import argparse
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import report, results, scenarios
from benchmarks.servers import Services


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, a table on the terminal only")
    parser.add_argument(
        "--only", action="append", choices=list(scenarios.ALL), help="this part (may be repeated)"
    )
    parser.add_argument("--rounds", type=int, help="instead of 3")
    parser.add_argument("--repeats", type=int, help="of a window that strangers disturbed, instead of 2")
    parser.add_argument("--readings", type=int, help="for the growth of data, instead of 10 million")
    parser.add_argument("--directory", type=Path, help="where databases live meanwhile, instead of /var/tmp")
    given = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("The benchmarks read /proc: they need Linux.")
    size = results.QUICK if given.quick else results.FULL
    changed = {name: getattr(given, name) for name in ("rounds", "repeats", "readings")}
    size = msgspec.structs.replace(size, **{k: v for k, v in changed.items() if v is not None})
    chosen = scenarios.IN_A_MINUTE if given.quick and not given.only else scenarios.ALL
    began = time.monotonic()
    sections = {}
    with Services(given.directory) as services:
        for name, measured in chosen.items():
            if given.only and name not in given.only:
                continue
            print(f"{name} …", file=sys.stderr, flush=True)
            sections[name] = measured(services, size)
            print(f"\n{report.table(sections[name])}\n", flush=True)
        if ratios := report.ratios(sections.get("rates", ())):
            print(ratios, flush=True)
        where = report.conditions(services, size, time.monotonic() - began)
    print(f"\n{where}")
    if not given.quick and not given.only:
        report.write(sections, where)
        print(f"written to {report.PAGE}")


if __name__ == "__main__":
    main()
