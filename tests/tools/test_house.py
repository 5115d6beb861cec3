"""What tools.house counts, on small trees."""

from pathlib import Path

import pytest

from tests.tools.conftest import Written
from tools import house
from tools.circles import import_circles


def places(rule: str, root: Path) -> list[str]:
    return next(each for each in house.RULES if each.name == rule).find(root)


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition",
    [
        "class Session: ...",
        "SESSION = 1",
        "SESSION: int = 1",
        "Session = dict[str, int]",
        "Session: TypeAlias = int",
    ],
)
def test_a_class_a_constant_or_an_alias_in_two_modules_is_a_shared_name(
    written: Written, definition: str
) -> None:
    root = written({"csms/one.py": definition, "bridges/two/__init__.py": definition})
    assert list(house.shared_names(root).values()) == [["csms.one", "bridges.two"]]


@pytest.mark.parametrize(
    "definition",
    [
        "def session(): ...",
        'T = TypeVar("T")',
        'P = typing.ParamSpec("P")',
        "class _Session: ...",
        "log = get()",
    ],
)
def test_functions_type_variables_private_names_and_conventions_are_not_counted(
    written: Written, definition: str
) -> None:
    root = written({"csms/one.py": definition, "csms/two.py": definition})
    assert house.shared_names(root) == {}


def test_a_name_counts_once_for_a_module_that_defines_it_twice(written: Written) -> None:
    twice = "try:\n    class Session: ...\nexcept ImportError:\n    class Session: ...\n"
    root = written({"csms/one.py": twice})
    assert house.shared_names(root) == {}


def test_a_module_that_imports_a_name_does_not_define_it(written: Written) -> None:
    root = written({"csms/one.py": "class Session: ...", "csms/two.py": "from csms.one import Session"})
    assert house.shared_names(root) == {}


def test_a_shared_name_needs_a_reason_and_a_reason_needs_a_shared_name(written: Written) -> None:
    reasons = '[tool.house.shared-names]\nCall = "both are frames"\nGone = "was shared once"\n'
    one = "class Call: ...\nclass Link: ..."
    root = written({"csms/one.py": one, "csms/two.py": one, "pyproject.toml": reasons})
    assert places("reasons", root) == [
        "Link: rename it, or give the reason",
        "Gone: one module defines it, take the reason away",
    ]


# -- words -------------------------------------------------------------------------------------------------

# house: words off


def test_lines_with_a_pronoun_for_an_actor_are_counted_in_code_and_documents(written: Written) -> None:
    root = written(
        {
            "csms/one.py": "# Nobody and nobody else\nnobodys = 1\n",
            "docs/deep/page.md": "The caller.\nWhoever comes.\n",
            "README.md": "for someone\n",
            "csms/static/vendor/x.js": "// whatever\n",
            "docs/schema.json": '"whatever"\n',
        }
    )
    assert places("pronouns", root) == [
        "csms/one.py:1: # Nobody and nobody else",
        "docs/deep/page.md:2: Whoever comes.",
        "README.md:1: for someone",
    ]


def test_between_the_marks_a_text_may_speak_of_the_words(written: Written) -> None:
    marked = "<!-- house: words off -->\n| whoever |\n<!-- house: words on -->\nwhoever\n"
    assert places("pronouns", written({"docs/a.md": marked})) == ["docs/a.md:4: whoever"]


# house: words on


# -- log events --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        'log.info("plan_taken", charger=charger)',
        'log.exception("failed")',
        'self._log.warning("link_lost")',
        'log.bind(charger=1).error("parked")',
        "math.log(2)",
        'console.info("a sentence")',
    ],
)
def test_a_constant_key_is_right_and_other_calls_are_not_log_calls(written: Written, call: str) -> None:
    assert places("events", written({"csms/one.py": call})) == []


@pytest.mark.parametrize(
    "call",
    [
        'log.info("plan taken", charger=charger)',
        'log.info(f"plan_{name}")',
        "log.debug(step)",
        'log.error("Plan_taken")',
        'logger.error("plan %s", name)',
        'self._log.bind(charger=1).critical("it ends")',
        'log.log(level, "plan taken")',
        "log.warning()",
    ],
)
def test_an_event_that_is_no_constant_key_is_counted(written: Written, call: str) -> None:
    [place] = places("events", written({"csms/one.py": f"\n{call}"}))
    assert place.startswith("csms/one.py:2: ")


def test_a_package_may_be_left_out_with_a_reason(written: Written) -> None:
    exempt = '[tool.house.plain-logs]\n"csms.simulate" = "for people"\n'
    call = 'log.info("a sentence")'
    root = written(
        {"csms/simulate/one.py": call, "csms/simulated.py": call, "pyproject.toml": exempt},
    )
    assert places("events", root) == ["csms/simulated.py:1: 'a sentence'"]


# -- files -------------------------------------------------------------------------------------------------


def test_a_module_may_have_400_lines(written: Written) -> None:
    root = written({"csms/right.py": "\n" * 400, "csms/long.py": "\n" * 401})
    assert places("long", root) == ["csms/long.py: 401 lines"]


def test_private_access_is_the_mqtt_clients_alone(written: Written) -> None:
    line = "x = client._sock  # type: ignore[attr-defined]  # noqa: SLF001\n"
    root = written({"csms/mqtt/client/connection.py": line, "csms/mqtt/link.py": line})
    assert [place.split(":")[0] for place in places("private", root)] == ["csms/mqtt/link.py"]


# -- circles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "back"),
    [
        ("circle_at_top", "from circle_at_top import one"),
        ("circle_in_function", "def later():\n    import circle_in_function.one"),
        ("circle_for_types", "if TYPE_CHECKING:\n    from circle_for_types.one import x"),
    ],
)
def test_a_circle_is_found_wherever_its_imports_stand(
    written: Written, monkeypatch: pytest.MonkeyPatch, package: str, back: str
) -> None:
    root = written(
        {
            f"{package}/__init__.py": "",
            f"{package}/one.py": f"from {package} import two\nx = 1",
            f"{package}/two.py": f"from {package}.three import y",
            f"{package}/three.py": f"y = 1\n{back}",
            f"{package}/apart.py": f"from {package} import one",
        }
    )
    monkeypatch.syspath_prepend(root)
    [circle] = import_circles([package])
    assert circle == [f"{package}.{name}" for name in ("one", "two", "three", "one")]


def test_the_shortest_circle_of_a_group_is_shown(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    root = written(
        {
            "shortest/__init__.py": "",
            "shortest/a.py": "import shortest.b",
            "shortest/b.py": "import shortest.c",
            "shortest/c.py": "import shortest.a\nimport shortest.b",
        }
    )
    monkeypatch.syspath_prepend(root)
    assert list(import_circles(["shortest"])) == [["shortest.b", "shortest.c", "shortest.b"]]


# -- the program -------------------------------------------------------------------------------------------


@pytest.fixture
def no_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "import_circles", lambda: iter(()))


@pytest.mark.usefixtures("no_circles")
def test_a_clean_tree_passes(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.main([], written({"csms/one.py": "x = 1"})) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(house.RULES) + 1
    assert all(line.endswith("  ok") for line in lines[1:])


@pytest.mark.usefixtures("no_circles")
def test_what_is_over_its_limit_is_named_and_fails(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    root = written({"csms/one.py": 'log.info("a sentence")'})
    assert house.main([], root) == 1
    out = capsys.readouterr().out
    assert "1 over" in out
    assert "csms/one.py:1: 'a sentence'" in out


def test_one_rule_can_be_listed_whole(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    root = written({"csms/one.py": 'log.info("a sentence")\n' * 20})
    assert house.main(["--list", "events"], root) == 1
    assert len(capsys.readouterr().out.splitlines()) == 20


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        house.main(["--help"])
    assert "python -m tools.house --list" in capsys.readouterr().out
