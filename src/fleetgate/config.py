"""The settings: every key is declared here once, with its default and its meaning.

`fleetgate config show` and docs/reference/configuration.md are made from these declarations, `configfile` reads a file
by them. What a value means is decided by the room that uses it; here only its shape is. Paths are relative to the
directory of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from fleetgate.errors import ConfigError
from fleetgate.rates import parse_rates
from fleetgate.scoring import SIGNALS, Signal, laid_over

Count = Annotated[int, Meta(ge=1)]
Address = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}$")]
MAX_PORT = 65_535


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: frozen, closed."""


class Edge(Section, frozen=True):
    id: Annotated[str, Meta(description="Name of this edge; stands on every row it received.")] = "edge-1"
    mqtt_listen: Annotated[Address, Meta(description="Where vehicles connect with MQTT 5.")] = "127.0.0.1:8883"
    https_listen: Annotated[Address, Meta(description="Where vehicles connect with HTTPS.")] = "127.0.0.1:8443"
    admin_listen: Annotated[
        Address, Meta(description="/metrics, /livez, /readyz; keep it off the vehicles' network.")
    ] = "127.0.0.1:9101"
    certificate: Annotated[str, Meta(description="Server certificate chain, PEM.")] = "pki/server.pem"
    private_key: Annotated[str, Meta(description="Server private key, PEM, mode 0600.")] = "pki/server.key"
    trust_bundle: Annotated[str, Meta(description="CA certificates that may vouch for devices, PEM.")] = "pki/trust.pem"
    keyring: Annotated[str, Meta(description="MAC root keys, mode 0600.")] = "keyring.json"
    tls_1_2: Annotated[bool, Meta(description="Also offer TLS 1.2, for units that cannot do 1.3.")] = False
    max_connections: Annotated[Count, Meta(description="MQTT connections; more are closed at once.")] = 16_000
    max_handshakes: Annotated[
        Count,
        Meta(description="Connections of each listener not yet through TLS and CONNECT; beyond it the oldest ends."),
    ] = 2_000
    max_http_connections: Annotated[Count, Meta(description="HTTPS connections; more are closed at once.")] = 1_000
    handshake_seconds: Annotated[Count, Meta(description="From accept to CONNECT, else the connection ends.")] = 10
    keep_alive_seconds: Annotated[
        Count, Meta(description="Largest keep-alive; a client that asks for more or none is given this one.")
    ] = 300
    control_grace_seconds: Annotated[
        int,
        Meta(
            ge=0,
            description="How long live sessions go on while control is away (rows carry stale_revocation).",
        ),
    ] = 900
    crl_grace_seconds: Annotated[
        int,
        Meta(
            ge=0,
            description="How long a CRL is used past its nextUpdate (rows carry stale_revocation); then devices under "
            "its issuer are told to come back later.",
        ),
    ] = 259_200
    drain_seconds: Annotated[Count, Meta(description="Deadline of the drain on SIGTERM.")] = 10


class Proxy(Section, frozen=True):
    protocol_v2_from: Annotated[
        tuple[str, ...],
        Meta(
            description="TCP peers (addresses, networks) that begin each connection to either listener with a PROXY "
            "protocol v2 header; nobody else may."
        ),
    ] = ()
    client_cert_from: Annotated[
        tuple[str, ...],
        Meta(
            description="TCP peers that end the vehicles' TLS and name the certificate of each request to the HTTPS "
            "listener in Client-Cert (RFC 9440); nobody else may."
        ),
    ] = ()
    client_cert_proxy_names: Annotated[
        tuple[str, ...],
        Meta(description="DNS names of those proxies: each shows a certificate of its own that bears one of them."),
    ] = ()
    client_cert_proxy_trust: Annotated[
        str, Meta(description="What those certificates are verified with, PEM: their CA, or they themselves.")
    ] = "pki/proxies.pem"


class Spool(Section, frozen=True):
    directory: Annotated[str, Meta(description="The spool; a disk of its own in production.")] = "spool"
    segment_bytes: Annotated[int, Meta(ge=4096, description="A segment is sealed at this size.")] = 16 * 1024 * 1024
    segment_seconds: Annotated[float, Meta(gt=0, description="... or at this age.")] = 1.0
    checkpoint_seconds: Annotated[float, Meta(gt=0, description="How often changed replay windows are written.")] = 10.0
    max_bytes: Annotated[Count, Meta(description="Spool size at which the edge takes no more.")] = 64 * 1024**3
    min_free_bytes: Annotated[
        int,
        Meta(ge=0, description="Free disk below which the edge takes no more; keep it above two segments."),
    ] = 256 * 1024**2


class Evidence(Section, frozen=True):
    directory: Annotated[
        str, Meta(description="Samples of refused messages, readable by the edge's user alone; not in the spool.")
    ] = "evidence"
    max_bytes: Annotated[
        int, Meta(ge=1024**2, description="What they may take; beyond it, the device with most loses most.")
    ] = 256 * 1024**2
    max_days: Annotated[Count, Meta(description="How long a sample is kept: it may say where somebody was.")] = 30


class Control(Section, frozen=True):
    url: Annotated[str, Meta(description="Control records, an SQLAlchemy URL; a relative SQLite path is allowed.")] = (
        "sqlite:///control.db"
    )

    def __post_init__(self) -> None:
        _no_password(self.url, "control.url", "PostgreSQL reads it from the file that PGPASSFILE names")


class ClickHouse(Section, frozen=True):
    url: Annotated[
        str,
        Meta(description="chdb://DIRECTORY (embedded, owned by load) or http(s)://HOST:PORT of a server."),
    ] = "chdb://clickhouse"
    listen: Annotated[
        Address,
        Meta(description="Where the owner of an embedded ClickHouse serves its HTTP interface; loopback."),
    ] = "127.0.0.1:8124"
    database: Annotated[str, Meta(pattern="^[a-z_][a-z0-9_]*$", description="Database of all tables.")] = "fleetgate"
    user: Annotated[str, Meta(description="User at a server.")] = "default"
    token_file: Annotated[
        str,
        Meta(description="File with the password (server) or the access token (embedded; made at first start)."),
    ] = "clickhouse.token"  # noqa: S105  a file name

    def __post_init__(self) -> None:
        _no_password(self.url, "clickhouse.url", "put it into the file that clickhouse.token_file names")


class Load(Section, frozen=True):
    admin_listen: Annotated[Address, Meta(description="/metrics, /livez, /readyz of load.")] = "127.0.0.1:9102"
    raw_days: Annotated[Count, Meta(description="How long raw_messages keeps the signed bytes.")] = 7
    retry_seconds: Annotated[float, Meta(gt=0, description="Longest pause between tries while ClickHouse is away.")] = (
        10.0
    )


class Signer(Section, frozen=True):
    socket: Annotated[str, Meta(description="Where the signer is asked; mode 0600, only its own user may.")] = (
        "signer.sock"
    )
    audit_key: Annotated[str, Meta(description="Audit private key, PEM, mode 0600; only the signer reads it.")] = (
        "pki/audit.key"
    )
    audit_public_key: Annotated[str, Meta(description="Its public half, PEM: what signed heads are verified with.")] = (
        "pki/audit.pem"
    )
    log: Annotated[str, Meta(description="What the signer has signed; append-only, back it up with the key.")] = (
        "signer.log"
    )
    renewal_socket: Annotated[
        str, Meta(description="Where the edge asks for renewals; mode 0660, the edge may be another user of the group.")
    ] = "renewal.sock"
    authority: Annotated[
        str, Meta(description="Directory of the CA that certifies devices; of the processes only the signer reads it.")
    ] = "pki"
    renewals_per_minute: Annotated[
        Count, Meta(description="Renewals of all devices together, as many at once; beyond it they are told to wait.")
    ] = 60
    device_renewals_per_day: Annotated[
        Count, Meta(description="Renewals that may be asked for in a day with one certificate of a device.")
    ] = 20


class Policy(Section, frozen=True):
    version: Annotated[str, Meta(description="Stands on every row that was judged under this policy.")] = "1"
    refused_at_once: Annotated[
        Count,
        Meta(description="Refusals after which a device is slowed down; not for time or a limit."),
    ] = 50
    refused_per_second: Annotated[
        float,
        Meta(gt=0, description="How many it is told of then: in between nothing is read from it."),
    ] = 0.5
    watched_score: Annotated[float, Meta(gt=0, description="From this score a device is watched.")] = 50.0
    quarantined_score: Annotated[float, Meta(gt=0, description="From this score a device is quarantined.")] = 100.0
    signals: Annotated[
        dict[str, Signal],
        Meta(
            description="What raises a score, a table [policy.signals.NAME] for each: the `weight` of one event, the "
            "`half_life_seconds` in which that fades, `at_most` how much of the score it makes."
        ),
    ] = {}

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "signals", laid_over(self.signals))


Messages = Annotated[
    str, Meta(description="Messages, as `100/s, 2000/min`; each KiB of one counts as one more. Empty: no limit.")
]


class Sending(Section, frozen=True):
    """Rates, as `fleetgate.rates` reads them."""

    messages: Messages = ""
    bytes: Annotated[str, Meta(description="Bytes of messages. Empty: no limit.")] = ""
    events: Annotated[str, Meta(description="Events in messages that are stored. Empty: no limit.")] = ""
    connections: Annotated[
        str, Meta(description="Connections begun, MQTT sessions and HTTPS connections. Empty: no limit.")
    ] = ""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            try:
                parse_rates(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


class Limit(Sending, frozen=True):
    handshakes: Annotated[str, Meta(description="TLS handshakes. Empty: no limit.")] = ""


class DeviceLimit(Limit, frozen=True):
    messages: Messages = "1000/5s"


class Limits(Section, frozen=True):
    device: DeviceLimit = msgspec.field(default_factory=DeviceLimit)
    tenant: Limit = msgspec.field(default_factory=Limit)
    software: Sending = msgspec.field(default_factory=Sending)  # a handshake does not say which version it is of
    issuer: Limit = msgspec.field(default_factory=Limit)
    gate: Limit = msgspec.field(default_factory=Limit)


class Crl(Section, frozen=True):
    """One entry of `[[crls]]`: a file or a URL, PEM or DER. `only_cas`: the list may be one about CA certificates only;
    elsewhere such a one would hide that nobody says which devices are revoked."""

    file: str = ""
    url: Annotated[str, Meta(pattern="^(https?://.+)?$")] = ""
    refresh_seconds: Count = 3600  # of a URL; a file is looked at once a second
    only_cas: bool = False

    def __post_init__(self) -> None:
        if bool(self.file) == bool(self.url):
            raise ValueError("an entry of crls has either a file or a url")


def _no_password(url: str, name: str, instead: str) -> None:
    """Settings are logged and shown."""
    if urlsplit(url).password is not None:
        raise ValueError(f"{name} has a password in it, which would be logged and shown: {instead}")


class Webhook(Section, frozen=True):
    """One entry of `[[webhooks]]`. http is for a network of one's own: whoever listens on the way reads the alerts."""

    url: str
    secret_file: str
    tenants: tuple[str, ...] = ()  # none: those of every tenant, and the gate's own
    allow_private: bool = False

    def __post_init__(self) -> None:
        where = urlsplit(self.url)  # a ValueError of it, or of its port, is one of ours
        if where.scheme not in ("https", "http") or not where.hostname or where.port == 0:
            raise ValueError("url of an entry of webhooks is https://HOST[:PORT]/PATH")
        if where.username is not None or where.fragment or not re.fullmatch("[!-~]+", self.url):
            raise ValueError("url of an entry of webhooks has no user, no fragment, and ASCII without spaces")
        if where.scheme == "http" and not self.allow_private:
            raise ValueError("url of an entry of webhooks is https, or has allow_private = true: for one's own network")

    def shown(self) -> Webhook:
        """Without the path, by which alone some receivers know their senders."""
        where = urlsplit(self.url)
        return msgspec.structs.replace(self, url=f"{where.scheme}://{where.netloc}/...")


class Config(Section, frozen=True):
    trust_domain: Annotated[str, Meta(description="Trust domain in the devices' SPIFFE ids.")] = "fleet.example"
    testing: Annotated[
        bool, Meta(description="Allows test variables such as FLEETGATE_TEST_CLOCK; never in production.")
    ] = False
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"
    edge: Edge = msgspec.field(default_factory=Edge)
    proxy: Proxy = msgspec.field(default_factory=Proxy)
    spool: Spool = msgspec.field(default_factory=Spool)
    evidence: Evidence = msgspec.field(default_factory=Evidence)
    control: Control = msgspec.field(default_factory=Control)
    clickhouse: ClickHouse = msgspec.field(default_factory=ClickHouse)
    load: Load = msgspec.field(default_factory=Load)
    signer: Signer = msgspec.field(default_factory=Signer)
    policy: Policy = msgspec.field(default_factory=Policy)
    limits: Limits = msgspec.field(default_factory=Limits)
    issuers: Annotated[
        dict[str, tuple[str, ...]],
        Meta(
            description="CAs that speak for a tenant, and for no other: its name, then the SHA-256 in hex of their "
            "certificates, or PEM files; the key of each is meant. Empty: each CA of the trust bundle speaks for "
            "every tenant."
        ),
    ] = msgspec.field(default_factory=dict)
    crls: Annotated[
        tuple[Crl, ...],
        Meta(
            description="Revocation lists of CAs of the trust bundle, a table [[crls]] for each: `file`, or `url` "
            "(fetched every `refresh_seconds`, 3600, and before its nextUpdate); `only_cas` takes one that is about "
            "certificates of CAs only."
        ),
    ] = ()
    webhooks: Annotated[
        tuple[Webhook, ...],
        Meta(
            description="Who is told alerts, a table [[webhooks]] for each: `url` (https), `secret_file` (what the "
            "calls are signed with, mode 0600), `tenants` (empty: all), `allow_private` (the URL may lead to addresses "
            "that are not public, and be http)."
        ),
    ] = ()
    home: Annotated[str, Meta(description="Directory that relative paths start from; default: that of this file.")] = (
        "."
    )

    def path(self, setting: str) -> Path:
        """The absolute path of a setting that names a file or directory."""
        return Path(self.home) / setting


def host_and_port(setting: str, address: str) -> tuple[str, int]:
    """The two halves of HOST:PORT or [IPV6]:PORT. Raises ConfigError naming the setting."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > MAX_PORT:
        raise ConfigError(f"{setting}: {address} has no port between 0 and {MAX_PORT}")
    return host.strip("[]"), int(port)


def settings(config: Config | type[Config] = Config) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value or default, meaning) of every key, in the order of declaration; of webhooks what may be
    shown."""
    value = config if isinstance(config, Config) else Config()
    yield from _walk("", value)


def _walk(prefix: str, section: Section) -> Iterator[tuple[str, Any, str]]:
    hints = get_type_hints(type(section), include_extras=True)
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _walk(f"{prefix}{name}.", value)
        elif isinstance(section, Policy) and name == "signals":
            for signal, default in SIGNALS.items():
                yield f"{prefix}{name}.{signal}", value[signal], default.meaning
        else:
            metas = [meta.description for meta in getattr(hints[name], "__metadata__", ()) if meta.description]
            shown = tuple(hook.shown() for hook in value) if name == "webhooks" else value
            yield f"{prefix}{name}", shown, metas[-1]
