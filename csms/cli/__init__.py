"""The `csms` command. Each command is a file; errors are one sentence on stderr, exit status 0, 1 or 2."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from csms.cli import accounts as accounts_command
from csms.cli import bridge as bridge_command
from csms.cli import ca as ca_command
from csms.cli import demo as demo_command
from csms.cli import events as events_command
from csms.cli import lists as list_commands
from csms.cli import migrate as migrate_command
from csms.cli import qr as qr_command
from csms.cli import send as send_command
from csms.cli import serve as serve_command
from csms.cli import simulate as simulate_command
from csms.cli import tags as tags_command
from csms.cli import tokens as tokens_command
from csms.errors import CsmsError, SettingsError

app = typer.Typer(
    name="csms",
    help="Central system for electric-car charge points: OCPP 1.6-J in, Postgres in the middle, MQTT out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"csms {version('csms')}")
        raise typer.Exit


@app.callback()
def root(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("serve", epilog=serve_command.EXAMPLE)(serve_command.serve)
app.command("demo", epilog=demo_command.EXAMPLE)(demo_command.demo)
app.command("migrate", epilog=migrate_command.EXAMPLE)(migrate_command.migrate)
app.command("bridge", epilog=bridge_command.EXAMPLE)(bridge_command.bridge)
app.command("simulate")(simulate_command.simulate)
app.command("qr", epilog=qr_command.EXAMPLE)(qr_command.qr)
app.command("send", epilog=send_command.EXAMPLE)(send_command.send)
app.command("chargers", epilog=list_commands.CHARGERS)(list_commands.chargers)
app.command("transactions", epilog=list_commands.TRANSACTIONS)(list_commands.transactions)
app.add_typer(accounts_command.app, name="accounts")
app.add_typer(ca_command.app, name="ca")
app.add_typer(tags_command.app, name="tags")
app.add_typer(tokens_command.app, name="tokens")
app.add_typer(events_command.app, name="events")


def main() -> None:
    """Console entry: wrong usage ends with 2, errors of ours become a sentence and a status, never a traceback."""
    try:
        app()
    except SettingsError as error:
        sys.exit(_complain(str(error), 2))
    except CsmsError as error:
        sys.exit(_complain(str(error), 1))


def _complain(sentence: str, status: int) -> int:
    print(f"csms: {sentence}", file=sys.stderr)
    return status
