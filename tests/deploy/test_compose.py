"""docker-compose.yml: every service is hardened, every client of the broker has its login, every variable is in .env.example."""

import re

import pytest
import yaml

from tests.harness.deployed_broker import PASSWORDS
from tests.harness.servers import REPOSITORY

TEXT = (REPOSITORY / "docker-compose.yml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
CLIENTS = {name: service for name, service in SERVICES.items() if "MQTT_HOST" in service.get("environment", {})}  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_capability_no_writable_root_and_no_unlimited_resource(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 300 and service["mem_limit"]
    assert "/tmp" in service["tmpfs"]
    # The image of csms has its own user.
    assert service["image"] == "csms" or service["user"] in {"postgres", "1883:1883"}
    assert not service.get("privileged")
    published = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
    assert published == (["9000:9000"] if name == "csms" else [])


def test_every_client_of_the_broker_has_a_login_of_its_own():
    assert set(CLIENTS) == {"csms", "ev-meter", "coin-op", "charge-amps"}
    for name, service in CLIENTS.items():
        environment = service["environment"]
        assert environment["MQTT_USERNAME"] == name
        assert re.fullmatch(rf"\$\{{{PASSWORDS[name]}:[-?].*\}}", environment["MQTT_PASSWORD"])
        assert service["depends_on"]["mosquitto"]["condition"] == "service_healthy"


def test_the_broker_runs_with_the_files_of_deploy_and_the_logins_of_env():
    broker, logins = SERVICES["mosquitto"], SERVICES["mosquitto-logins"]
    assert set(logins["environment"]) == {*PASSWORDS.values(), "MQTT_STATIONS"}
    assert broker["depends_on"]["mosquitto-logins"]["condition"] == "service_completed_successfully"
    mounted = {
        path.split(":")[0]: path.split(":")[1] for service in (broker, logins) for path in service["volumes"]
    }
    config = (REPOSITORY / "deploy" / "mosquitto.conf").read_text()
    assert f"acl_file {mounted['./deploy/mosquitto.acl']}\n" in config
    assert mounted["./deploy/mosquitto.conf"] == "/mosquitto/config/mosquitto.conf"
    assert logins["entrypoint"] == ["sh", mounted["./deploy/mosquitto-logins.sh"]]
    script = (REPOSITORY / "deploy" / "mosquitto-logins.sh").read_text()
    (file,) = re.findall(r"\$\{1:-(\S+)\}", script)
    assert f"password_file {file}\n" in config and file.startswith(mounted["mosquitto"])
    assert "allow_anonymous false\n" in config


def test_every_variable_is_explained():
    explained = re.findall(r"^([A-Z_]+)=$", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    assert set(explained) <= used
    optional = {name for name in used if name.startswith("CHARGE_AMPS_")} | {"CSMS_ENROLLMENT"}
    assert used - optional == set(explained)
