"""`fleetgate config`: check the configuration, show every setting, and print the reference pages.

Decides which settings are looked at more closely than their shape. The settings are declared in `fleetgate.config`,
the exit codes in `fleetgate.errors`; docs/reference is printed from there, and a test compares.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer
from msgspec import Struct

from fleetgate import fault
from fleetgate.accept.lists import Source
from fleetgate.accept.proxies import Proxies
from fleetgate.accept.standing import check_scores
from fleetgate.accept.tls import ProxyTls, trust_bundle
from fleetgate.cli.console_output import AsJson, print_json, print_table, say
from fleetgate.cli.session import session_of
from fleetgate.clock import SystemClock, clock_from_environment
from fleetgate.config import Config, host_and_port, settings
from fleetgate.configfile import ENVIRONMENT_PREFIX
from fleetgate.control.auditkey import read_audit_key
from fleetgate.control.issuers import Issuers
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.secretfile import read_secret
from fleetgate.control.store import Store
from fleetgate.errors import EXIT_CODES, ConfigError, FleetgateError
from fleetgate.load.addresses import is_never_public
from fleetgate.load.signature import webhook_secret

app = typer.Typer(help="The configuration.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(context: typer.Context) -> None:
    """Check names and types of all settings, and the files that they name."""
    session = session_of(context)
    config = session.config
    problems = 0
    rows = []
    for setting, looks_at in CHECKS.items():
        try:
            looks_at(config)
            rows.append((setting, "ok"))
        except FleetgateError as error:
            problems += 1
            rows.append((setting, str(error)))
    print_table(("setting", "result"), rows, empty="")
    if problems:
        raise ConfigError(f"{problems} of {len(CHECKS)} checks failed; the list above says which and what to do")


@app.command()
def show(
    context: typer.Context,
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/reference/configuration.md, with the defaults.")
    ] = False,
) -> None:
    """Show every setting with its value and meaning. No setting holds a secret."""
    if markdown:
        say(configuration_page().rstrip("\n"))
        return
    config = session_of(context).config
    if as_json:
        print_json({name: value for name, value, _ in settings(config)})
        return
    print_table(
        ("setting", "value", "meaning"), [row for setting in settings(config) for row in _rows(*setting)], empty=""
    )


def _rows(name: str, value: Any, meaning: str) -> list[tuple[str, str, str]]:
    """A table in the file has a row for each of its entries: in one, it would make every row as wide."""
    if isinstance(value, dict) and value:
        return [(f"{name}.{key}", toml(inner), meaning) for key, inner in value.items()]
    return [(name, toml(value), meaning)]


@app.command("exit-codes")
def exit_codes() -> None:
    """Print docs/reference/exit-codes.md."""
    say(exit_codes_page().rstrip("\n"))


def _testing(config: Config) -> None:
    clock_from_environment(config.testing)
    fault.arm(config.testing)


def _addresses(config: Config) -> None:
    for name, value, _ in settings(config):
        if name.endswith("_listen") or name == "clickhouse.listen":
            host_and_port(name, value)


def _clickhouse(config: Config) -> None:
    url = config.clickhouse.url
    if not url.startswith(("chdb://", "http://", "https://")):
        raise ConfigError(f"{url} is neither chdb://DIRECTORY nor http(s)://HOST:PORT")


def _certificate(config: Config) -> None:
    certificate, key = config.path(config.edge.certificate), config.path(config.edge.private_key)
    read_secret(key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ConfigError(f"{certificate} and {key} do not belong together ({error.reason})") from None
    except OSError as error:
        raise ConfigError(f"cannot read {certificate}: {error.strerror}; `fleetgate ca init` makes it") from None


def _trust_bundle(config: Config) -> None:
    path = config.path(config.edge.trust_bundle)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{path} holds no certificates in PEM ({error.reason})") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; `fleetgate ca init` makes it") from None
    trust_bundle(config)


def _keyring(config: Config) -> None:
    Keyring.load(config.path(config.edge.keyring))


def _authority(config: Config) -> None:
    authority = Authority.load(config.path(config.signer.authority), SystemClock())
    if authority.trust_domain != config.trust_domain:
        raise ConfigError(f"the CA is of the trust domain {authority.trust_domain}, trust_domain is another")


def _audit_key(config: Config) -> None:
    read_audit_key(config.path(config.signer.audit_key), config.path(config.signer.audit_public_key))


def _signer_sockets(config: Config) -> None:
    for name, value in (("socket", config.signer.socket), ("renewal_socket", config.signer.renewal_socket)):
        directory = config.path(value).parent
        if not directory.is_dir():
            raise ConfigError(f"signer.{name}: there is no directory {directory}: make it, or name another place")


def _proxy(config: Config) -> None:
    Proxies(config.proxy)
    ProxyTls.load(config)


def _issuers(config: Config) -> None:
    Issuers.load(config, trust_bundle(config))


def _crls(config: Config) -> None:
    """As the edge does when it starts, but for the copies on its disk."""
    bundle = trust_bundle(config)
    for entry in config.crls:
        Source(entry, config, None).begin(bundle, SystemClock().now_ms())


def _webhooks(config: Config) -> None:
    for entry in config.webhooks:
        if not entry.allow_private and is_never_public(urlsplit(entry.url).hostname or ""):
            raise ConfigError(f"{entry.shown().url} leads to no public address: allow_private = true would let it")
        webhook_secret(config.path(entry.secret_file))


def _control(config: Config) -> None:
    Store.open(config, SystemClock()).close()


CHECKS: dict[str, Callable[[Config], None]] = {
    "testing": _testing,
    "addresses": _addresses,
    "clickhouse.url": _clickhouse,
    "policy.watched_score": lambda config: check_scores(config.policy),
    "edge.certificate": _certificate,
    "edge.trust_bundle": _trust_bundle,
    "edge.keyring": _keyring,
    "signer.authority": _authority,
    "signer.audit_key": _audit_key,
    "signer sockets": _signer_sockets,
    "proxy": _proxy,
    "issuers": _issuers,
    "crls": _crls,
    "webhooks": _webhooks,
    "control.url": _control,
}


def configuration_page() -> str:
    """docs/reference/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "Printed by `fleetgate config show --markdown`. One TOML file, `fleetgate.toml` in the working directory or",
        "what `--config` or `FLEETGATE_CONFIG` names; the key `edge.id` stands as `id` in the table `[edge]`. The",
        f"environment lies over it: `{ENVIRONMENT_PREFIX}EDGE_ID` sets `edge.id`. Unknown keys and variables are",
        "refused. Paths are relative to `home`. No setting holds a secret.",
        "",
        "| key | default | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{name}` | `{toml(value)}` | {_in_table(meaning)} |" for name, value, meaning in settings()]
    return "\n".join(lines) + "\n"


def exit_codes_page() -> str:
    """docs/reference/exit-codes.md."""
    lines = [
        "# Exit codes",
        "",
        "Printed by `fleetgate config exit-codes`. An error is one line on standard error; `fleetgate --debug` adds a",
        "traceback.",
        "",
        "| code | name | meaning |",
        "| --- | --- | --- |",
        "| 0 | | Done. |",
    ]
    for error in EXIT_CODES:
        meaning = inspect.cleandoc(error.__doc__ or "").replace(f" (exit {error.exit_code})", "")
        lines.append(f"| {error.exit_code} | `{error.__name__}` | {_in_table(meaning)} |")
    lines += [
        "| 2 | | The command line itself is wrong: an unknown command or option, a missing value. |",
        "| 70 | | A fault of fleetgate: please report it, with the output of `--debug`. |",
        "| 74 | | Standard output does not take the answer: its disk is full, or nobody reads it any more. |",
    ]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A value as it stands in the file."""
    if isinstance(value, Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict) and value:
        return "{ " + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + " }"
    return msgspec.json.encode(value).decode()


def _in_table(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
