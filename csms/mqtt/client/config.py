"""How to reach the broker."""

import ssl

from msgspec import Struct


class LinkConfig(Struct, frozen=True, kw_only=True):
    """Address, credentials and times of a link. `client_id` gets `-{node}` unless it holds `{node}` or `{instance}`.

    `topics_hidden`: the topics name people or accounts, so no log shows them. `repr` shows no password.
    """

    host: str = "localhost"
    port: int = 1883
    version: str = "5"  # or "3.1.1"
    client_id: str = "csms"
    node: str = "node"
    name: str = "main"  # the metrics' label, and the client id's last part unless it is "main"
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_insecure: bool = False
    keepalive_s: int = 30
    connect_timeout_s: float = 10
    publish_timeout_s: float = 5
    reconnect_min_s: float = 1
    reconnect_max_s: float = 30
    max_inflight: int = 20
    topics_hidden: bool = False

    def __repr__(self) -> str:
        return f"LinkConfig({self.name}: {self.host}:{self.port})"

    def loggable_topic(self, topic: str) -> str:
        return "(hidden)" if self.topics_hidden else topic

    @property
    def identifier(self) -> str:
        """The client identifier: its own for each link of each node, since a broker keeps one client of each."""
        own = self.client_id.replace("{node}", self.node).replace("{instance}", self.node)
        if own == self.client_id:
            own = f"{own}-{self.node}"
        return own if self.name == "main" else f"{own}-{self.name}"

    def tls_context(self) -> ssl.SSLContext:
        """Read the certificates, for each connection anew: renewed ones need no restart."""
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
        except FileNotFoundError:
            raise FileNotFoundError(f"MQTT_TLS_CA_FILE {self.tls_ca_file} does not exist") from None
        if self.tls_cert_file is not None:
            try:
                context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
            except FileNotFoundError:
                raise FileNotFoundError("MQTT_TLS_CERT_FILE or MQTT_TLS_KEY_FILE does not exist") from None
        if self.tls_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
