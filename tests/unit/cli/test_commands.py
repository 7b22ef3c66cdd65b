"""The commands as a person types them: what they print, what they leave behind, how they end."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from fleetgate.cli import main as main_module
from fleetgate.clock import SystemClock
from fleetgate.configfile import load
from fleetgate.control.auditkey import make_audit_key
from fleetgate.control.quarantine import quarantine_for
from fleetgate.control.store import Store
from fleetgate.errors import EXIT_CODES

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

CAR = ("--tenant", "acme", "--device", "car-tcu")
RELEASE_ALL = (
    "release", "--classification", "false_positive", "--reason", "x", "--opened-after", "2026-11-29T18:00Z",
)  # fmt: skip


def test_fresh_gate_passes_its_own_check(shell: Shell) -> None:
    """After `ca init` every file that the configuration names is there and fits."""
    shell.must("ca", "init")
    assert shell.run("config", "check") == 0


def test_ca_init_speaks_for_local_and_given_hosts(shell: Shell) -> None:
    """The gate's certificate names localhost, both loopback addresses and every --host."""
    shell.must("ca", "init", "--host", "gate.example.org", "--host", "192.0.2.7")
    certificate = x509.load_pem_x509_certificates((shell.directory / "pki" / "server.pem").read_bytes())[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "gate.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address(a) for a in ("127.0.0.1", "::1", "192.0.2.7")]


def test_second_ca_init_changes_no_file(gate: Shell) -> None:
    """Root keys and CA are never overwritten, whichever file is in the way."""
    before = {path: path.read_bytes() for path in gate.directory.rglob("*.*") if path.suffix in {".key", ".pem"}}
    assert gate.run("ca", "init") == 4
    assert {path: path.read_bytes() for path in before} == before


def test_a_signer_that_was_started_first_is_in_nobodys_way(shell: Shell) -> None:
    """Its key is no CA: `ca init` makes one, and leaves the key as it is."""
    pki = shell.directory / "pki"
    make_audit_key(pki / "audit.key", pki / "audit.pem", shell.directory / "signer.log")
    key = (pki / "audit.key").read_bytes()
    shell.must("ca", "init")
    assert (pki / "audit.key").read_bytes() == key
    shell.must("device", "enroll", "--tenant", "acme", "--vehicle", "car")


def test_ca_init_beside_the_log_of_a_lost_signer_leaves_no_half_of_a_ca(shell: Shell) -> None:
    """Whoever moved pki away to begin another CA is told what else, before anything is made."""
    (shell.directory / "signer.log").write_text("signed")
    assert (shell.run("ca", "init"), "begin anew" in shell.err, (shell.directory / "pki").exists()) == (2, True, False)


def test_ca_init_stops_at_a_keyring_before_making_a_ca(shell: Shell) -> None:
    """One file in the way leaves no half of a CA behind."""
    (shell.directory / "keyring.json").write_text("{}")
    assert (shell.run("ca", "init"), (shell.directory / "pki").exists()) == (4, False)


def test_trust_domain_of_ca_init_goes_into_the_configuration(shell: Shell) -> None:
    """A trust domain that is given once holds for enrolment, and is what the edge reads."""
    shell.must("ca", "init", "--trust-domain", "cars.example")
    assert shell.json("config", "show")["trust_domain"] == "cars.example"
    shell.must("device", "enroll", "--tenant", "acme", "--vehicle", "car")


def test_trust_domain_against_the_configuration_is_refused(shell: Shell) -> None:
    """A file that says otherwise is not overruled by an option, which the edge would not see."""
    (shell.directory / "fleetgate.toml").write_text('trust_domain = "a.example"\n')
    assert shell.run("ca", "init", "--trust-domain", "b.example") == 2
    assert "change it there" in shell.err


def test_ca_of_another_trust_domain_enrolls_nobody(gate: Shell) -> None:
    """A device whose certificate the edge would refuse is not enrolled in the first place."""
    (gate.directory / "fleetgate.toml").write_text('trust_domain = "other.example"\n')
    assert gate.run("device", "enroll", "--tenant", "acme", "--vehicle", "bus") == 2


def test_enrolled_device_is_listed_and_shown(gate: Shell) -> None:
    """JSON has the names of the records; the table has a line for the device."""
    assert [(d["device_id"], d["vehicle_id"], d["credential"]) for d in gate.json("device", "list")] == [
        ("car-tcu", "car", "active")
    ]
    assert gate.json("device", "show", *CAR)["credentials"][0]["kid"] == 1
    assert "car-tcu" in gate.must("device", "list")
    assert "car-tcu" in gate.must("device", "show", *CAR)


def test_list_of_another_tenant_is_empty(gate: Shell) -> None:
    """`--tenant` shows that tenant's devices and no others."""
    assert gate.json("device", "list", "--tenant", "umbra") == []


def test_device_whose_bundle_cannot_be_written_is_not_enrolled(gate: Shell) -> None:
    """Without its private key a device would be on record for nothing; the same command works afterwards."""
    (gate.directory / "devices" / "bus-tcu").mkdir()
    enroll = ("device", "enroll", "--tenant", "acme", "--vehicle", "bus")
    assert gate.run(*enroll) == 4
    assert [device["device_id"] for device in gate.json("device", "list")] == ["car-tcu"]
    gate.must(*enroll, "--out", "elsewhere")


def test_a_renewal_has_a_place_beside_the_files_of_the_present_credential(gate: Shell) -> None:
    """Each renewal one of its own, without anything being named or moved."""
    for _ in range(2):
        gate.must("device", "renew", *CAR)
    places = sorted(path.parent.name for path in (gate.directory / "devices" / "car-tcu").rglob("private.pem"))
    assert places == ["car-tcu", "renewal-1", "renewal-2"]


def test_a_revocation_to_come_is_in_the_list(gate: Shell) -> None:
    """With how it can be moved."""
    told = gate.must("device", "revoke", *CAR, "--reason", "sold", "--effective", "2126-12-01T08:00Z")
    assert "it takes effect at 2126-12-01 08:00:00Z; to move it, revoke again" in told
    listed = gate.must("device", "list")
    assert ("revoked from" in listed, "2126-12-01 08:00:00Z" in listed) == (True, True)
    gate.must("device", "revoke", *CAR, "--reason", "stolen")
    assert "revoked from" not in gate.must("device", "list")


def test_a_vehicle_under_its_former_name_tells_where_it_went(gate: Shell) -> None:
    """The VIN is on record under the name that it has now."""
    car = ("--tenant", "acme", "--vehicle", "car")
    gate.must("vehicle", "set-vin", *car, "--vin", "WVWZZZ1JZXW000001")
    gate.must("vehicle", "transfer", *car, "--to-tenant", "globex", "--to-vehicle", "g-1204", "--reason", "sold")
    assert "moved to globex/g-1204" in gate.must("vehicle", "identify", *car)
    assert "moved to" not in gate.must("vehicle", "identify", "--tenant", "globex", "--vehicle", "g-1204")


@pytest.mark.parametrize(("deed", "way"), [("suspend", "fleetgate device resume"), ("decommission", "device enroll")])
def test_a_refused_renewal_says_what_to_do_first(gate: Shell, deed: str, way: str) -> None:
    """The next step, and not only that there is none here."""
    gate.must("device", deed, *CAR, "--reason", "a test")
    assert (gate.run("device", "renew", *CAR), way in gate.err) == (4, True)


def test_a_table_of_the_configuration_makes_no_line_longer(gate: Shell) -> None:
    """Each entry has a row, and no row is filled up to the width of the widest."""
    shown = gate.must("config", "show")
    assert "policy.signals.bad_mac" in shown
    assert all(line == line.rstrip() for line in shown.splitlines())


@pytest.mark.parametrize("setting", ["clickhouse.url", "control.url"])
def test_a_password_in_a_setting_is_refused_and_not_repeated(gate: Shell, setting: str) -> None:
    """It would be logged at each start, and shown to whoever asks for the settings."""
    table, key = setting.split(".")
    (gate.directory / "fleetgate.toml").write_text(f'[{table}]\n{key} = "https://loader:hush@db.example"\n')
    assert (gate.run("config", "show"), setting in gate.err, "hush" in gate.err + gate.out) == (2, True, False)


def test_the_path_of_a_webhook_is_not_shown(gate: Shell) -> None:
    """Some receivers know their senders by it alone."""
    entry = 'url = "https://hooks.example:444/hush"\nsecret_file = "hook.secret"'
    (gate.directory / "fleetgate.toml").write_text(f"[[webhooks]]\n{entry}\n")
    shown = gate.must("config", "show")
    assert ("https://hooks.example:444/..." in shown, "hush" in shown) == (True, False)


def test_a_bundle_that_a_killed_command_left_is_known_by_its_certificate(
    gate: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind the bundle and before the commit: the next run says that these keys are nobody's."""
    enroll = ("device", "enroll", "--tenant", "acme", "--vehicle", "bus")
    directory = gate.directory / "devices" / "bus-tcu"
    with monkeypatch.context() as killed:
        killed.setattr("fleetgate.control.store.Write.flush", lambda _: 1 / 0)
        assert gate.run(*enroll) == 70
    assert gate.run(*enroll) == 4
    assert "not on record" in gate.err
    assert "remove it" in gate.err
    shutil.rmtree(directory)
    gate.must(*enroll)
    assert gate.run("device", "renew", "--tenant", "acme", "--device", "bus-tcu", "--out", str(directory)) == 4
    assert "not on record" not in gate.err


def test_a_bundle_is_durable_with_its_name_before_its_device_is_on_record(
    gate: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the device would be on record, and its only private key gone with the directory."""
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_dev, status.st_ino))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    place = gate.directory / "new" / "bus"
    gate.must("device", "enroll", "--tenant", "acme", "--vehicle", "bus", "--out", str(place))
    for path in (*place.iterdir(), place, place.parent, gate.directory):
        assert (path.stat().st_dev, path.stat().st_ino) in synced, path


def test_revoked_device_is_shown_with_the_reason(gate: Shell) -> None:
    """`device revoke` ends the credential and says why to whoever looks."""
    gate.must("device", "revoke", *CAR, "--reason", "stolen")
    credential = gate.json("device", "show", *CAR)["credentials"][0]
    assert (credential["status"], credential["reason"]) == ("revoked", "stolen")


def test_a_suspension_is_told_with_its_reason_wherever_one_looks(gate: Shell) -> None:
    """To the operator by `device show` and `audit`, beside the device's files by `doctor`."""
    gate.must("device", "suspend", *CAR, "--reason", "in the workshop")
    assert "in the workshop" in gate.must("device", "show", *CAR)
    newest = gate.must("audit", *CAR).splitlines()[0]
    assert "  suspend acme device/car-tcu by " in newest
    assert newest.endswith(": reason in the workshop")
    assert gate.json("audit", "--last", "1")[0]["detail"] == {"reason": "in the workshop"}
    assert gate.must("audit", "--tenant", "umbra") == "no entries\n"
    assert gate.run("doctor", "devices/car-tcu") == 1
    assert "in the workshop" in gate.out


def test_ban_and_release_from_the_shell(gate: Shell) -> None:
    """A ban needs no finding, for it has only one; a release asks for it. Both need a reason."""
    assert gate.run("quarantine", "ban", *CAR) == 2
    assert gate.run("quarantine", "ban", *CAR, "--reason", " ") == 2
    gate.must("quarantine", "ban", *CAR, "--reason", "a test")
    assert gate.json("quarantine", "show", *CAR)["state"] == "banned"
    assert gate.run("quarantine", "release", *CAR, "--reason", "a test") == 2
    gate.must("quarantine", "release", *CAR, "--classification", "false_positive", "--reason", "wrong car")
    assert [d["decision"] for d in gate.json("quarantine", "show", *CAR)["decisions"]] == ["release", "ban"]
    assert "wrong car" in gate.must("quarantine", "show", *CAR)


def test_a_decision_says_only_of_itself_what_becomes_of_what_was_held(gate: Shell) -> None:
    """A release before it may have given back everything, or there never was anything."""
    with Store.open(load(None), SystemClock(), write=True) as store, store.write("test") as write:
        quarantine_for(write, "acme", "car-tcu", "bad_mac", {}, "1")
    released = gate.must("quarantine", "release", *CAR, "--classification", "benign", "--reason", "x")
    assert "load copies what was held for it into events" in released
    banned = gate.must("quarantine", "ban", *CAR, "--reason", "x").splitlines()
    assert banned[1:] == ["nothing that was held is copied into events by this decision"]


def test_advice_names_no_option_that_the_command_lacks(gate: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ClickHouse is away, --offline is told of by commands that have it, and of an embedded one."""
    token = load(None).path(load(None).clickhouse.token_file)
    token.parent.mkdir(parents=True, exist_ok=True)
    token.write_text("x" * 32)
    token.chmod(0o600)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("FLEETGATE_CLICKHOUSE_LISTEN", where)
        for lacks in (("quarantine", "show", *CAR), ("breaker", "hold", *CAR[:2], "--software", "1", "--reason", "x")):
            told = gate.must(*lacks)
            assert f"ClickHouse does not answer at http://{where}" in told
            assert "--offline" not in told
        for has in (("gaps", "--device", "acme/car-tcu"), ("alerts",), ("db", "query", "SELECT 1")):
            assert gate.run(*has) == 7, has
            assert "--offline opens an embedded one that is stopped" in gate.err
        monkeypatch.setenv("FLEETGATE_CLICKHOUSE_URL", f"http://{where}")
        assert gate.run("alerts") == 7
        assert "--offline" not in gate.err


def test_who_is_released_must_be_clear(gate: Shell) -> None:
    """One device, or those of a signal since a time: never all of a tenant by leaving something out."""
    release = ("quarantine", "release", "--tenant", "acme", "--classification", "false_positive", "--reason", "x")
    since = ("--opened-after", "2026-11-29T18:00Z")
    signal, nobody = ("--why", "bad_mac"), ("--device", "")
    for which in ((), signal, since, (*CAR[2:], *signal, *since), (*nobody, *signal, *since), (*CAR[2:], "--why", "")):
        assert gate.run(*release, *which) == 2
        assert "--device, or --why and --opened-after" in gate.err
    assert "0 devices of acme are released now, of 0 such cases" in gate.must(*release, "--why", "bad_mac", *since)


def test_whoever_is_there_for_more_stays_and_is_counted(gate: Shell) -> None:
    """A bulk release says how many cases name its signal beside another: nobody believes that all are out."""
    with Store.open(load(None), SystemClock(), write=True) as store, store.write("test") as write:
        quarantine_for(write, "acme", "car-tcu", "malformed_body, bad_mac", {}, "1")
    release = ("quarantine", "release", "--tenant", "acme", "--classification", "false_positive", "--reason", "x")
    said = gate.must(*release, "--why", "bad_mac", "--opened-after", "2020-01-01T00:00Z")
    assert "0 devices of acme are released now, of 0 such cases" in said
    assert "1 cases name bad_mac and another signal: their devices stay, look at each" in said
    assert gate.json("quarantine", "show", *CAR)["state"] == "quarantined"


def test_no_open_cases_is_a_sentence(gate: Shell) -> None:
    """An empty list is said, not left blank."""
    assert "no open cases" in gate.must("quarantine", "list")


@pytest.mark.parametrize(
    ("question", "code", "says"),
    [
        (("list", "--tenant", "acm"), 3, "no tenant acm:"),
        (("list", "--tenant", "", "--all", "--json"), 3, "no tenant '':"),
        (("list", "--why", "bad-mac"), 2, "no signal bad-mac; the signals are malformed_envelope, "),
        (("list", "--tenant", "acme", "--why", ""), 2, "no signal '';"),
        ((*RELEASE_ALL, "--tenant", "acm", "--why", "bad_mac"), 3, "no tenant acm:"),
        ((*RELEASE_ALL, "--tenant", "acme", "--why", "bad-mac"), 2, "no signal bad-mac;"),
        (("evidence", "--tenant", "acme", "--device", "car-9"), 3, "no device car-9 of tenant acme;"),
        (("evidence", "--tenant", "acm", "--device", "car-tcu", "--json"), 3, "no device car-tcu of tenant acm;"),
        (("evidence", "--tenant", "acme", "--device", "", "--raw", "1"), 3, "no device '' of tenant acme;"),
    ],
)
def test_a_mistyped_name_does_not_read_as_all_is_well(
    gate: Shell, question: tuple[str, ...], code: int, says: str
) -> None:
    """Nothing is found of what there is not: it is named, and the exit status is no success."""
    assert gate.run("quarantine", *question) == code
    assert (gate.out, says in gate.err) == ("", True), gate.err


def test_what_is_known_and_has_no_case_is_no_error(gate: Shell) -> None:
    """Every signal, several together, what cases were for without one, and devices that are out for good."""
    gate.must("device", "decommission", *CAR, "--reason", "scrapped")
    for why in ("impossible_travel", "malformed_body, bad_mac", "clone_sign", "ban"):
        assert "no open cases" in gate.must("quarantine", "list", "--tenant", "acme", "--why", why)
    assert gate.must("quarantine", "evidence", *CAR) == "no samples\n"
    assert gate.json("quarantine", "evidence", *CAR) == []


def test_what_a_case_was_once_for_may_be_asked_for(gate: Shell) -> None:
    """Also when it is no signal of this version, and its case is closed."""
    with Store.open(load(None), SystemClock(), write=True) as store, store.write("test") as write:
        quarantine_for(write, "acme", "car-tcu", "a word of another version", {}, "1")
    gate.must("quarantine", "release", *CAR, "--classification", "benign", "--reason", "x")
    assert "no open cases" in gate.must("quarantine", "list", "--why", "a word of another version")


def test_markup_in_a_reason_is_printed_as_it_is(gate: Shell) -> None:
    """What a person typed is text in a table, never formatting."""
    gate.must("device", "revoke", *CAR, "--reason", "[red]x[/nothing]")
    assert "[red]x[/nothing]" in gate.must("device", "show", *CAR)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("device", "enroll", "--tenant", "acme", "--vehicle", "car"), 4, "device revoke"),
        (("device", "enroll", "--tenant", "ACME", "--vehicle", "car"), 2, "must match"),
        (("device", "enroll", "--tenant", "acme", "--vehicle", "bus", "--days", "401"), 2, "400 days"),
        (("device", "revoke", "--tenant", "acme", "--device", "ghost", "--reason", "x"), 3, "device list"),
        (("quarantine", "release", *CAR, "--classification", "benign", "--reason", "x"), 4, "nothing to release"),
        (("quarantine", "ban", *CAR, "--classification", "benign", "--reason", "x"), 2, "confirmed"),
        (("--config", "absent.toml", "config", "check"), 2, "absent.toml"),
    ],
)
def test_error_is_one_line_that_says_what_to_do(gate: Shell, arguments: tuple[str, ...], code: int, says: str) -> None:
    """An error ends the command with its exit code and a single line on standard error."""
    assert gate.run(*arguments) == code
    assert (gate.out, gate.err.count("\n"), gate.err.startswith("fleetgate: ")) == ("", 1, True)
    assert says in gate.err


def test_unknown_setting_in_the_environment_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped variable is refused by its name."""
    monkeypatch.setenv("FLEETGATE_EDGE_IDD", "x")
    assert shell.run("config", "check") == 2
    assert "FLEETGATE_EDGE_IDD names no setting (was FLEETGATE_EDGE_ID meant?)" in shell.err


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("[edge]\nmqtt_listn = ':1'", "there is no setting edge.mqtt_listn (was edge.mqtt_listen meant?)"),
        ("[polcy]\nfuture_ms = 1", "there is no setting polcy (was policy meant?)"),
        ("[policy]\nmqtt_listen = ':1'", "there is no setting policy.mqtt_listen"),
        ("[[webhooks]]\nulr = 'x'", "there is no setting webhooks[0].ulr"),
        ("colour = 'red'", "there is no setting colour\n"),
    ],
)
def test_a_mistyped_setting_is_named_with_the_one_that_is_meant(shell: Shell, lines: str, says: str) -> None:
    (shell.directory / "fleetgate.toml").write_text(lines)
    assert shell.run("config", "check") == 2
    assert says in shell.err


@pytest.mark.parametrize(
    ("host", "well"),
    [
        ("127.0.0.1:18080", False),
        ("[::1]", False),
        ("localhost", False),
        ("Hooks.LocalHost.:8443", False),
        ("10.1.2.3", False),
        ("8.8.8.8", True),
        ("hooks.example", True),
        ("localhost.example", True),
    ],
)
def test_config_check_finds_a_webhook_that_can_reach_nobody(gate: Shell, host: str, well: bool) -> None:
    """No delivery to it would be made without allow_private; of other names only their addresses tell."""
    hook = f'[[webhooks]]\nurl = "https://{host}/x"\nsecret_file = "hook.secret"\n'
    (gate.directory / "hook.secret").write_text("a" * 64)
    (gate.directory / "hook.secret").chmod(0o600)
    (gate.directory / "fleetgate.toml").write_text(hook)
    assert (gate.run("config", "check") == 0) is well
    assert ("leads to no public address: allow_private = true would let it" in gate.out) is not well
    (gate.directory / "fleetgate.toml").write_text(f"{hook}allow_private = true\n")
    gate.must("config", "check")


def test_a_secret_that_a_webhook_lacks_is_made_by_its_own_commands(gate: Shell) -> None:
    """No `ca init` makes it."""
    (gate.directory / "fleetgate.toml").write_text('[[webhooks]]\nurl = "https://a.example/x"\nsecret_file = "nope"\n')
    assert gate.run("config", "check") == 2
    path = gate.directory / "nope"
    assert f"{path} does not exist: `openssl rand -hex 32 > {path}` and `chmod 600 {path}` make one" in gate.out


def test_a_value_that_is_none_of_those_there_are_is_told_in_plain_words(gate: Shell) -> None:
    """With those there are."""
    assert gate.run("quarantine", "release", *CAR, "--classification", "nonsense", "--reason", "x") == 2
    assert "'nonsense' is not one of 'benign', 'false_positive', 'confirmed'" in gate.err
    assert "Value error" not in gate.err


def test_configuration_file_is_found_by_its_variable(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLEETGATE_CONFIG names the file when --config does not."""
    (shell.directory / "other.toml").write_text('[edge]\nid = "e7"\n')
    monkeypatch.setenv("FLEETGATE_CONFIG", "other.toml")
    assert shell.json("config", "show")["edge.id"] == "e7"


def test_test_clock_is_refused_in_production(gate: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command of a production gate lets its time be chosen from outside."""
    monkeypatch.setenv("FLEETGATE_TEST_CLOCK", "0,1")
    assert gate.run("device", "list") == 2


def test_damaged_database_ends_with_control_away(gate: Shell) -> None:
    """The driver's own error never reaches a person, and nothing is taken for unknown."""
    for path in gate.directory.glob("control.db*"):
        path.write_bytes(b"junk" * 4096)
    assert gate.run("device", "list") == 6
    assert gate.err == "fleetgate: the file that control.url names is no SQLite database: restore it from its backup\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("pki/server.key", "chmod 600"),
        ("pki/trust.pem", "trust.pem"),
        ("keyring.json", "keyring.json"),
        ("control.db", "no SQLite database"),
    ],
)
def test_config_check_names_each_broken_file(gate: Shell, damage: str, says: str) -> None:
    """A file that is damaged or open to others is named, with what to do, and the command fails."""
    path = gate.directory / damage
    path.write_bytes(b"junk" * 4096)
    path.chmod(0o644)
    assert gate.run("config", "check") == 2
    assert says in gate.out


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('authority = "nope"', "nope"),
        ('audit_key = "zzz"', "zzz does not exist"),
        ('socket = "nowhere/signer.sock"', "signer.socket: there is no directory"),
        ('renewal_socket = "nowhere/renewal.sock"', "signer.renewal_socket: there is no directory"),
    ],
)
def test_config_check_looks_at_the_signer(gate: Shell, setting: str, says: str) -> None:
    """Before it is started: without its CA and key nothing is renewed, and nothing signed."""
    (gate.directory / "fleetgate.toml").write_text(f"[signer]\n{setting}\n")
    assert gate.run("config", "check") == 2
    assert says in gate.out


@pytest.mark.parametrize(
    "policy",
    ["[policy.signals.bad_mack]\nweight = 1.0\n", "[policy]\nwatched_score = 200.0\n"],
    ids=["signal", "order"],
)
def test_config_check_refuses_a_policy_that_cannot_work(gate: Shell, policy: str) -> None:
    """A signal that does not exist, or thresholds in the wrong order, are mistakes worth a word."""
    (gate.directory / "fleetgate.toml").write_text(policy)
    assert gate.run("config", "check") == 2


@pytest.mark.parametrize(("proxy", "says"), [
    ('protocol_v2_from = ["proxy.example.org"]', "proxy.protocol_v2_from"),
    ('client_cert_from = ["10.0.0.10"]', "proxy.client_cert_proxy_names"),
    ('client_cert_from = ["10.0.0.10"]\nclient_cert_proxy_names = ["proxy.example.org"]', "run-behind-a-proxy.md"),
], ids=["no address", "no name", "no trust"])  # fmt: skip
def test_config_check_refuses_a_proxy_that_could_be_anybody(gate: Shell, proxy: str, says: str) -> None:
    """The setting that is missing or wrong is named, before an edge starts with it."""
    (gate.directory / "fleetgate.toml").write_text(f"[proxy]\n{proxy}\n")
    assert gate.run("config", "check") == 2
    assert says in gate.out


def test_fault_of_the_program_is_one_line_too(gate: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception ends with 70 and its type; its text, which may quote anything, is not printed."""

    def fail(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("fleetgate.cli.device.list_devices", fail)
    assert gate.run("device", "list") == main_module.UNEXPECTED
    assert ("RuntimeError" in gate.err, "hunter2" in gate.err, gate.err.count("\n")) == (True, False, 1)


def test_debug_adds_the_traceback(gate: Shell) -> None:
    """Whoever asks for it sees where an error came from."""
    assert gate.run("--debug", "device", "show", "--tenant", "x", "--device", "y") == 3
    assert "Traceback" in gate.err


def test_program_runs_as_a_process_and_says_its_version() -> None:
    """`fleetgate --version` needs no configuration and ends with 0."""
    done = subprocess.run(
        [sys.executable, "-m", "fleetgate.cli.main", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.startswith("fleetgate"), done.stderr) == (0, True, "")


def test_exit_codes_are_distinct() -> None:
    """Each kind of error has a code of its own, none of them that of a fault."""
    codes = [error.exit_code for error in EXIT_CODES]
    assert (len(set(codes)), main_module.UNEXPECTED in codes) == (len(codes), False)


def test_database_holds_no_key_material(gate: Shell) -> None:
    """Neither a private key nor a MAC key is in any table."""
    dump = "\n".join(sqlite3.connect(gate.directory / "control.db").iterdump())
    mac_key = (gate.directory / "devices" / "car-tcu" / "device.json").read_text().split('"mac_key": "')[1][:20]
    assert ("PRIVATE" in dump, mac_key in dump) == (False, False)


@pytest.mark.parametrize(("reader", "code", "told"), [("closed", 74, 0), ("full", 74, 1)])
def test_an_answer_that_nobody_takes_is_no_fault(gate: Shell, reader: str, code: int, told: int) -> None:
    """`| head` that has seen enough needs no word; a full disk is said in one line. Never a traceback."""
    done = gate.unread(reader, "config", "exit-codes")
    assert (done.returncode, len(done.stderr.splitlines())) == (code, told), done


@pytest.mark.parametrize("arguments", ["config exit-codes", "--help", "device list"])
@pytest.mark.parametrize(("closed", "told"), [(">&-", 1), (">&- 2>&- <&-", 0)], ids=["output", "all"])
def test_an_answer_without_standard_output_is_no_fault(gate: Shell, arguments: str, closed: str, told: int) -> None:
    """Started with it closed: told in one line where there is somewhere to tell it, and no file takes its number."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m fleetgate.cli.main {arguments} {closed}', sys.executable],
        cwd=gate.directory,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (74, told), done
    assert "cannot write the answer" in done.stderr or not told


def test_an_error_of_a_file_is_none_of_the_answer(gate: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError without a file's name comes from a write or a sync: 70, and not told of standard output."""

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fleetgate.cli.device.list_devices", fails)
    assert gate.run("device", "list") == main_module.UNEXPECTED
    assert "unexpected OSError" in gate.err


def test_a_library_that_writes_the_answer_is_told_so_too(gate: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in bytes, and with an errno that a file has as well."""

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys.stdout, "write", fails)
    assert gate.run("device", "list") == main_module.NO_OUTPUT
    assert gate.err == "fleetgate: cannot write the answer: Input/output error\n"


def altered(gate: Shell, statement: str) -> None:
    """As somebody who has the file, past the triggers."""
    with closing(sqlite3.connect(gate.directory / "control.db")) as db, db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        "detail = 'not json'",
        "detail = '[]'",
        "detail = '{}'",
        "detail = CAST(x'ff' AS TEXT)",
        "at_ms = 'abc'",
        "at_ms = 9000000000000000000",
        "actor = x'ff'",
    ],
)
def test_a_row_of_the_audit_that_somebody_altered_hides_no_other(gate: Shell, change: str) -> None:
    """It is told as such by whatever shows the audit, be it a decision about the device or a transition of it."""
    gate.must("device", "suspend", *CAR, "--reason", "in the workshop")
    with Store.open(load(None), SystemClock(), write=True) as store, store.write("test") as write:
        quarantine_for(write, "acme", "car-tcu", "clone_sign", {"presented": "ab"}, "1")
    for action in ("suspend", "transition"):
        altered(gate, f"UPDATE audit SET {change} WHERE action = '{action}'")
    everything, case_file = gate.must("audit"), gate.must("quarantine", "show", *CAR)
    assert " enrol acme device/car-tcu by " in everything
    assert "clone_sign" in case_file
    shown = gate.must("device", "show", *CAR)
    if not change.startswith(("detail = '{}'", "at_ms = 9")):  # those look like rows of ours, but for a transition
        for told in (everything, shown):
            assert "row 2 of the audit: it cannot be read: see `fleetgate verify audit`\n" in told
        assert "row 3 of the audit: it cannot be read" in everything
    if not change.startswith("at_ms = 9"):
        assert "row 3 of the audit: it cannot be read: see `fleetgate verify audit`\n" in case_file
        assert gate.json("quarantine", "show", *CAR)["unreadable"][0]["place"] == 3
