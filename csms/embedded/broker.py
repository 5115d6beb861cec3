"""A private MQTT broker (rumqttd, from the iotcore wheel), which runs exactly as long as this program."""

import importlib.util
import ipaddress
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from csms.embedded.errors import EmbeddedError
from csms.embedded.ports import LOOPBACK, is_accepting, next_free_port
from csms.embedded.processes import open_log, program_environment, stop, tail

log = structlog.get_logger()

_ATTEMPTS = 3
_EVERY_ADDRESS = "0.0.0.0"
_PORT_TAKEN = 98

# The child ends at the end of its standard input, which the kernel closes when this program ends, however it ends.
# Unlike a death signal this depends on no thread and works on every system. rumqttd logs an error for every packet,
# hence the level.
_CHILD = f"""
import logging, os, sys, threading
def follow_parent():
    while os.read(0, 4096):
        pass
    os._exit(0)
threading.Thread(target=follow_parent, daemon=True).start()
sys.path.append(sys.argv[2])
logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
from iotcore import IotCoreBroker
try:
    IotCoreBroker(config_path=sys.argv[1]).run_forever()
except OSError as problem:
    print(problem, file=sys.stderr, flush=True)
    os._exit({_PORT_TAKEN})
os._exit(1)
"""

# The wheel's own default is every interface. Without the segment limits the broker grows to
# hundreds of MiB; without the outgoing packet count a new subscriber gets 200 retained messages and no more.
_CONFIG = """
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 20000
max_segment_size = 1048576
max_segment_count = 8

[v4.1]
name = "mqtt-3.1.1"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
dynamic_filters = true

[v5.1]
name = "mqtt-5"
listen = "{host}:{port_v5}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
"""


class EmbeddedBroker:
    """An MQTT broker: 3.1.1 on `port`, MQTT 5 on `port_v5`, the same messages on both. It has no logins.

    For demonstrations and tests. Messages are kept in memory only; a wildcard subscription gets at most 100
    retained messages at QoS 1, and thousands at QoS 0 (docs/decisions/0004).

    It listens on `listen`, an IPv4 address; `host` is where this machine reaches it.

    A port that is taken is replaced by the next free one; 0 asks for any. `asked_port` and `asked_port_v5` are the ports
    that were asked for. `config` is rumqttd's configuration with the fields host, port and port_v5. `choose_port` finds a
    free port, as `next_free_port` does. Raises EmbeddedError.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        listen: str = LOOPBACK,
        port: int = 1883,
        port_v5: int = 1884,
        start_timeout_s: float = 20.0,
        config: str = _CONFIG,
        choose_port: Callable[..., int] = next_free_port,
    ) -> None:
        self._state_dir = state_dir.expanduser().absolute()
        self._listen = listen
        self.host = LOOPBACK if listen == _EVERY_ADDRESS else listen
        self.asked_port = port
        self.asked_port_v5 = port_v5
        self._start_timeout_s = start_timeout_s
        self._config = config
        self._choose_port = choose_port
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.port_v5 = 0

    @property
    def log_path(self) -> Path:
        return self._state_dir / "broker.log"

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as problem:
            self._stop()
            raise EmbeddedError(
                f"The embedded MQTT broker cannot use {problem.filename or self._state_dir} ({problem.strerror}): "
                "set CSMS_DATA_DIR to a directory you can write to, or set MQTT_HOST."
            ) from problem
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        spec = importlib.util.find_spec("iotcore")
        if spec is None or spec.origin is None:
            raise EmbeddedError(
                "The embedded MQTT broker is not installed: set MQTT_HOST to an existing broker, set MQTT_ENABLED=false, "
                "or install it with: pip install 'csms[embedded]'."
            )
        library = str(Path(spec.origin).parent.parent)
        self._state_dir.mkdir(parents=True, exist_ok=True)
        refused: set[int] = set()
        for _ in range(_ATTEMPTS):
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self.port = self._choose_port(self.asked_port, host=self._listen, taken=refused)
            self.port_v5 = self._choose_port(
                self.asked_port_v5, host=self._listen, taken={*refused, self.port}
            )
            self._launch(library)
            if self.pid is not None:
                break
            process, self._process = self._process, None
            if process is None or process.returncode != _PORT_TAKEN:
                raise EmbeddedError(
                    f"The embedded MQTT broker did not start within {self._start_timeout_s:.0f} s; see {self.log_path}, "
                    f"or set MQTT_HOST. Its last output:\n{tail(self.log_path, start=log_start)}"
                )
            # Another program took a port between the check above and the broker's start.
            refused |= {self.port, self.port_v5}
        else:
            raise EmbeddedError(
                f"Other programs keep taking the ports from {self.asked_port} and {self.asked_port_v5} on: set MQTT_HOST."
            )
        for asked, got in ((self.asked_port, self.port), (self.asked_port_v5, self.port_v5)):
            if asked not in (0, got):
                log.warning("embedded_broker_port_taken", asked=asked, used=got)
        if not ipaddress.ip_address(self._listen).is_loopback:
            log.warning("embedded_broker_open", host=self._listen)
        log.info("embedded_broker_started", host=self._listen, port=self.port, port_v5=self.port_v5)

    def _launch(self, library: str) -> None:
        """Start the child and wait until it listens. It is stopped when it does not in time."""
        number, name = tempfile.mkstemp(prefix="broker-", suffix=".toml", dir=self._state_dir)
        config = Path(name)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(self._config.format(host=self._listen, port=self.port, port_v5=self.port_v5))
            with open_log(self.log_path) as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _CHILD, str(config), library],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=program_environment(),
                    start_new_session=True,
                )
            if not self._becomes_ready():
                self._end_process(self._process)
        finally:
            config.unlink(missing_ok=True)

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline and self.pid is not None:
            if is_accepting(self.port, self.host) and is_accepting(self.port_v5, self.host):
                return True
            time.sleep(0.01)
        return False

    def _end_process(self, process: "subprocess.Popen[bytes]") -> None:
        stop(process, ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)))
        if process.stdin is not None:
            process.stdin.close()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._end_process(process)
