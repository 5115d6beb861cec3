"""Count what the house rules limit: shared names, words, log events, file lengths, private access, import circles."""

import argparse
import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.circles import import_circles
from tools.log_calls import log_calls
from tools.source import PACKAGES, REPOSITORY, files, modules, settings

_EXAMPLES = """\
examples:
  python -m tools.house                    the table, and what is over its limit; exit status 1 where anything is
  python -m tools.house --list pronouns    every place that a rule counts
"""
_SHOWN = 10

_LONGEST_FILE = 400
_PRIVATE_ALLOWED = "csms/mqtt/client/"  # it mends aiomqtt and paho from the inside
_PRIVATE = re.compile(r"#\s*noqa:[^#]*\bSLF001\b")

# house: words off
# In quotation marks, nobody is the system user of that name.
_PRONOUNS = re.compile(
    r"\b(whoever|(?<![\"'`])nobody(?![\"'`])|somebody|whatever|anybody|everybody|someone|anyone|everyone)\b",
    re.IGNORECASE,
)
# house: words on
_WORDS_OFF, _WORDS_ON = (re.compile(rf"(#|<!--) house: words {state}\b") for state in ("off", "on"))
_TEXT_FOLDERS = (*PACKAGES, "tests", "tools", "benchmarks", "examples", "docs", "migrations", "deploy")
_TEXT_ENDINGS = (".py", ".md", ".html", ".js", ".css", ".conf", ".toml", ".yml")

_CONSTANT = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_TYPE_NAME = re.compile(r"[A-Z]\w*")
_TYPE_VARIABLES = {"TypeVar", "ParamSpec", "TypeVarTuple"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is counted, and how many there may be. `find` gives one line of text for each."""

    name: str
    counts: str
    limit: int
    find: Callable[[Path], list[str]]


def shared_names(root: Path) -> dict[str, list[str]]:
    """The public names that two or more modules define, with those modules.

    Classes, type aliases and UPPER_CASE constants. Functions do not count, since they are used qualified by their
    module, nor do type variables, which mean nothing outside of theirs. Names that every module of a kind has (log,
    router, app) are lower case and so do not count either.
    """
    defined = defaultdict(list)
    for module in modules(root):
        for name in sorted(set(_public_names(module.tree.body))):
            defined[name].append(module.name)
    return {name: places for name, places in sorted(defined.items()) if len(places) > 1}


def _public_names(body: Sequence[ast.stmt]) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if not _is_type_variable(value):
                yield from _named(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield from _named(name)
            case ast.If(body=inner, orelse=other):
                yield from _public_names([*inner, *other])
            case ast.Try(body=inner, handlers=handlers, orelse=other):
                yield from _public_names([*inner, *other, *(line for each in handlers for line in each.body)])


def _named(name: str) -> Iterator[str]:
    if _CONSTANT.fullmatch(name) or _TYPE_NAME.fullmatch(name):
        yield name


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in _TYPE_VARIABLES


def _names(root: Path) -> list[str]:
    return [f"{name}: {', '.join(places)}" for name, places in shared_names(root).items()]


def _reasons(root: Path) -> list[str]:
    shared, reasons = shared_names(root), settings(root).get("shared-names", {})
    missing = [f"{name}: rename it, or give the reason" for name in shared if not reasons.get(name)]
    stale = [f"{name}: one module defines it, take the reason away" for name in reasons if name not in shared]
    return missing + stale


def _pronouns(root: Path) -> list[str]:
    """Lines between a comment `house: words off` and a comment `house: words on` speak of the words themselves."""
    found = []
    for path in (*files(root, *_TEXT_FOLDERS, endings=_TEXT_ENDINGS), *sorted(root.glob("*.md"))):
        counted = True
        for number, line in enumerate(path.read_text().splitlines(), 1):
            counted = (counted or bool(_WORDS_ON.search(line))) and not _WORDS_OFF.search(line)
            if counted and _PRONOUNS.search(line):
                found.append(f"{path.relative_to(root).as_posix()}:{number}: {line.strip()}")
    return found


def _events(root: Path) -> list[str]:
    exempt = tuple(settings(root).get("plain-logs", {}))
    return [
        f"{call.place}: {call.shown}"
        for module in modules(root)
        if not f"{module.name}.".startswith(tuple(f"{name}." for name in exempt))
        for call in log_calls(module)
        if not call.has_key
    ]


def _long_files(root: Path) -> list[str]:
    lengths = {module.path.as_posix(): len(module.lines) for module in modules(root)}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > _LONGEST_FILE]


def _private(root: Path) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for module in modules(root)
        if not (path := module.path.as_posix()).startswith(_PRIVATE_ALLOWED)
        for number, line in enumerate(module.lines, 1)
        if _PRIVATE.search(line)
    ]


def _circles(_root: Path) -> list[str]:
    return [" → ".join(circle) for circle in import_circles()]


RULES = (
    Rule("names", "public names that two or more modules define", 15, _names),
    Rule("reasons", "of those, names without a reason in [tool.house.shared-names]", 0, _reasons),
    Rule("pronouns", "lines with a pronoun for an actor, code and documents", 10, _pronouns),
    Rule("events", "log calls whose event is no constant snake_case key", 0, _events),
    Rule("long", f"modules of more than {_LONGEST_FILE} lines", 0, _long_files),
    Rule("private", f"noqa: SLF001 outside {_PRIVATE_ALLOWED.rstrip('/')}", 0, _private),
    Rule("circles", "import circles between modules", 0, _circles),
)


def table(found: dict[str, list[str]]) -> str:
    """A line for each rule: how many, how many there may be, the verdict."""
    width = max(len(rule.counts) for rule in RULES)
    lines = [f"{'rule':<10}{'what is counted':<{width}}  {'count':>6}{'limit':>7}  verdict"]
    for rule in RULES:
        count = len(found[rule.name])
        verdict = "ok" if count <= rule.limit else f"{count - rule.limit} over"
        lines.append(f"{rule.name:<10}{rule.counts:<{width}}  {count:>6}{rule.limit:>7}  {verdict}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, root: Path = REPOSITORY) -> int:
    """Print the table, or the places of one rule. Return the exit status: 1 where a count is over its limit."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.house",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--list", choices=[rule.name for rule in RULES], help="print what this rule counts, all of it"
    )
    chosen = parser.parse_args(arguments).list
    if chosen:
        rule = next(rule for rule in RULES if rule.name == chosen)
        places = rule.find(root)
        print("\n".join(places))
        return len(places) > rule.limit
    found = {rule.name: rule.find(root) for rule in RULES}
    print(table(found))
    over = [rule for rule in RULES if len(found[rule.name]) > rule.limit]
    for rule in over:
        print(f"\n{rule.name}: {rule.counts}")
        for line in found[rule.name][:_SHOWN]:
            print(f"  {line}")
        if len(found[rule.name]) > _SHOWN:
            print(f"  … python -m tools.house --list {rule.name}")
    return bool(over)


if __name__ == "__main__":
    sys.exit(main())
