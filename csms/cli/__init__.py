"""The `csms` command. Each command is a module of this package.

An error is one sentence on stderr. Exit status: 0, 1 for a failure, 2 for wrong usage or settings.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from csms.cli.output import complain, say
from csms.errors import CsmsError, SettingsError

# Command → module, function (or Typer with commands of its own), and the constant with its example. A module is
# imported when its command is called: `csms chargers` need not wait for the imports of `csms serve`.
_COMMANDS: Final[dict[str, tuple[str, str, str | None]]] = {
    "serve": ("serve", "serve", "EXAMPLE"),
    "demo": ("demo", "demo", "EXAMPLE"),
    "migrate": ("migrate", "migrate", "EXAMPLE"),
    "restored": ("restored", "restored", "EXAMPLE"),
    "bridge": ("bridge", "bridge", "EXAMPLE"),
    "simulate": ("simulate", "app", None),
    "qr": ("qr", "qr", "EXAMPLE"),
    "send": ("send", "send", "EXAMPLE"),
    "chargers": ("lists", "chargers", "CHARGERS_EXAMPLE"),
    "transactions": ("transactions", "app", None),
    "audit": ("audit", "audit", "EXAMPLE"),
    "erase": ("erase", "erase", "EXAMPLE"),
    "accounts": ("accounts", "app", None),
    "ca": ("ca", "app", None),
    "plans": ("plans", "app", None),
    "tags": ("tags", "app", None),
    "tariffs": ("tariffs", "app", None),
    "tokens": ("tokens", "app", None),
    "events": ("events", "app", None),
}
_OPTIONS: Final[dict[str, Any]] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "rich",
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector: imports make hardly any garbage, and it takes a quarter of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Commands(TyperGroup):
    """The table above as a group of commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        module_name, attribute, example = _COMMANDS[cmd_name]
        with _collector_paused():
            module = import_module(f"csms.cli.{module_name}")
        called = getattr(module, attribute)
        alone = typer.Typer(add_completion=False, **_OPTIONS)
        if isinstance(called, typer.Typer):
            alone.add_typer(called, name=cmd_name)
        else:
            alone.command(cmd_name, epilog=None if example is None else getattr(module, example))(called)
        return typer.main.get_group(alone).commands[cmd_name]


app = typer.Typer(
    name="csms",
    cls=_Commands,
    help="Central system for chargers of electric cars: OCPP 1.6-J, Postgres, MQTT.",
    no_args_is_help=True,
    **_OPTIONS,
)


def _version(asked: bool) -> None:
    if asked:
        say(f"csms {version('csms')}")
        raise typer.Exit


@app.callback()
def root(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command: an error of csms ends it with a sentence and a status, without a traceback."""
    try:
        app()
    except SettingsError as error:
        sys.exit(_complain(str(error), 2))
    except CsmsError as error:
        sys.exit(_complain(str(error), 1))


def _complain(sentence: str, status: int) -> int:
    complain(f"csms: {sentence}")
    return status
