"""Write docs/logs.md: every event the code logs, with its level, module and fields.

All columns but the last come from the code. The last one, what the event means, is written by hand in that page and
stays when the page is written anew: the page is its only place. The check fails where the page is not what the code
gives, and where an event has no meaning yet.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tools.log_calls import LogCall, log_calls
from tools.source import REPOSITORY, modules

_EXAMPLES = """\
examples:
  python -m tools.logs            is docs/logs.md what the code gives? exit status 1 where it is not
  python -m tools.logs --write    write it; then fill in the meaning of new events, in the page
"""
PAGE = Path("docs/logs.md")
_HEAD = """\
# Log events

A line of the log has an event, which is a constant key, and fields. Filter and alert by the key. With `CSMS_LOG=json` a
line is one JSON object: `event`, `level`, `timestamp` and the fields below. Simulators and libraries log sentences, which
are not listed.

`python -m tools.logs --write` writes this table from the code; only the last column is written by hand.

| event | level | module | fields | meaning |
|---|---|---|---|---|
"""
_ROW = re.compile(r"\| `(?P<event>[^`]+)` \|.*\| (?P<meaning>[^|]*?) ?\|")


def page(calls: Iterable[LogCall], meanings: Mapping[str, str]) -> str:
    """The text of docs/logs.md. Events without a constant key are left out: tools.house counts those."""
    events: dict[str, list[LogCall]] = defaultdict(list)
    for call in calls:
        if call.event is not None and call.has_key:
            events[call.event].append(call)
    rows = [_row(event, events[event], meanings.get(event, "")) for event in sorted(events)]
    return _HEAD + "".join(f"{row}\n" for row in rows)


def _row(event: str, calls: list[LogCall], meaning: str) -> str:
    def listed(names: Iterable[str]) -> str:
        return ", ".join(f"`{name}`" for name in dict.fromkeys(names))

    levels = ", ".join(dict.fromkeys(call.level for call in calls))
    fields = listed(field for call in calls for field in call.fields)
    modules_ = listed(sorted({call.module for call in calls}))
    return " | ".join(["", f"`{event}`", levels, modules_, fields, meaning, ""]).strip()


def meanings(text: str) -> dict[str, str]:
    """What the page says each event means: its last column, by event."""
    rows = (_ROW.fullmatch(line) for line in text.splitlines())
    return {row["event"]: row["meaning"] for row in rows if row is not None}


def faults(calls: Iterable[LogCall], text: str) -> Iterator[str]:
    """What is wrong with the page, a sentence each."""
    known = meanings(text)
    right = page(calls, known)
    now = meanings(right)
    if text != right:
        changed = [f"{event} is new" for event in now if event not in known]
        changed += [f"{event} is logged no more" for event in known if event not in now]
        yield f"{PAGE} is not what the code gives{': ' if changed else ''}{', '.join(changed)}"
    for event, meaning in now.items():
        if not meaning:
            yield f"{PAGE} does not say what {event} means: write a sentence into its last column"


def main(arguments: Sequence[str] | None = None, root: Path = REPOSITORY) -> int:
    """Check the page, or write it. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.logs",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE}, and keep what it says of each event"
    )
    options = parser.parse_args(arguments)
    calls = [call for module in modules(root) for call in log_calls(module)]
    target = root / PAGE
    text = target.read_text() if target.is_file() else ""
    if options.write:
        before, after = meanings(text), page(calls, meanings(text))
        target.write_text(after)
        for event in sorted(before.keys() - meanings(after).keys()):
            print(f"taken out: {event}: {before[event]}")
        text = after
    wrong = list(faults(calls, text))
    for fault in wrong:
        print(fault, file=sys.stderr)
    if wrong and not options.write:
        print("python -m tools.logs --write mends the table.", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
