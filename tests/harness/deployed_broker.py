"""A Mosquitto with the very files of deploy/: only paths, port and log are others."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.harness.servers import REPOSITORY, Mosquitto

DEPLOY = REPOSITORY / "deploy"
PASSWORDS = {
    "csms": "MQTT_PASSWORD",
    "coin-op": "MQTT_COIN_OP_PASSWORD",
    "ev-meter": "MQTT_EV_METER_PASSWORD",
    "charge-amps": "MQTT_CHARGE_AMPS_PASSWORD",
    "billing": "MQTT_BILLING_PASSWORD",
    "hems": "MQTT_HEMS_PASSWORD",
    "homeassistant": "MQTT_HOMEASSISTANT_PASSWORD",
    "prices": "MQTT_PRICES_PASSWORD",
}
ADMIN, ADMIN_PASSWORD = "admin", "of-the-tests"
# For the tests: a login with every right, and a topic by which each client knows that it has all that went before.
_OF_THE_TESTS = f"\nuser {ADMIN}\ntopic readwrite #\ntopic read $SYS/#\npattern read fence/%u/now\n"


def make_logins(file: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run deploy/mosquitto-logins.sh with these variables and no others."""
    return subprocess.run(
        ["sh", str(DEPLOY / "mosquitto-logins.sh"), str(file)],
        env={"PATH": f"{os.environ['PATH']}:/usr/bin:/usr/sbin"} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class DeployedMosquitto(Mosquitto):
    """`acl`: another access list than deploy/mosquitto.acl. A role's password is the role's name with `-word`."""

    def __init__(
        self, directory: Path, *, stations: Mapping[str, str] | None = None, acl: str | None = None
    ) -> None:
        super().__init__(directory, (), {}, "")
        passwords = directory / "passwords"
        environment = {variable: f"{role}-word" for role, variable in PASSWORDS.items()}
        environment["MQTT_STATIONS"] = " ".join(f"{name}={word}" for name, word in (stations or {}).items())
        made = make_logins(passwords, **environment)
        assert made.returncode == 0, made.stderr
        # A login of the tests' own; the script makes none of this name.
        admin = directory / "admin"
        admin.write_text(f"{ADMIN}:{ADMIN_PASSWORD}\n")
        subprocess.run(["mosquitto_passwd", "-U", str(admin)], check=True, timeout=30)
        with passwords.open("a") as file:
            file.write(admin.read_text())
        self._acl.write_text(((DEPLOY / "mosquitto.acl").read_text() if acl is None else acl) + _OF_THE_TESTS)
        self._acl.chmod(0o600)
        config = (DEPLOY / "mosquitto.conf").read_text()
        for ours, here in (
            ("listener 1883\n", f"listener {self.port} {self.host}\n"),
            ("/mosquitto/data/passwords", str(passwords)),
            ("/mosquitto/config/mosquitto.acl", str(self._acl)),
            ("/mosquitto/data/", f"{directory}/"),
        ):
            assert ours in config
            config = config.replace(ours, here)
        if os.geteuid() == 0:
            config += "user root\n"  # as in `Mosquitto`
        self._config.write_text(config)


def installed() -> bool:
    return shutil.which("mosquitto_passwd") is not None
