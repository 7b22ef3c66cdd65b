"""Image and compose file: what compose says of them, and what each container may reach, see and be.

No engine is asked: nothing is built or started here.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deployed import DEPLOY, ROOT

from fleetgate.config import Config, host_and_port
from fleetgate.configfile import load

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"].startswith("fleetgate:"))
PASSWORDS = ("CLICKHOUSE_OWNER_SHA256", "CLICKHOUSE_LOAD_SHA256", "CLICKHOUSE_READER_SHA256")
HOME = "/var/lib/fleetgate/"


def command() -> list[str] | None:
    """Compose of either generation; its plugin where there is one."""
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def configured(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "-f", "compose.yaml", "config"],
        cwd=DEPLOY,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_compose_understands_the_file_and_asks_for_the_passwords() -> None:
    """Every key is known; without the digests of the passwords nothing starts."""
    compose = command()
    if compose is None:
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    done = configured(compose, **dict.fromkeys(PASSWORDS, "0" * 64))
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() >= {"signer", "edge", "load", "clickhouse"}
    done = configured(compose)
    assert done.returncode != 0
    assert "CLICKHOUSE_" in done.stderr


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_container_can_do_more_than_it_must(name: str) -> None:
    """A root file system that is read-only, no capability, no new privilege; ours under a number that is not 0."""
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert not re.search(r":latest$|^[^:]+$", service["image"].replace("${FLEETGATE_VERSION:-latest}", "1"))
    if name in OURS:
        assert service["user"] == "10001:10001"


def test_the_edge_has_no_way_to_clickhouse() -> None:
    """No network in common; no way out of an internal one; only the vehicles' ports are open to others."""
    networks = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert not networks["edge"] & networks["clickhouse"]
    assert networks["load"] & networks["clickhouse"]
    assert [name for name in networks["clickhouse"] if not COMPOSE["networks"][name].get("internal")] == []
    assert SERVICES["signer"]["network_mode"] == "none"
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"edge": ["8883:8883", "8443:8443"], "grafana": ["127.0.0.1:3000:3000"]}


def seen(name: str) -> set[str]:
    """Directories of the gate that a container mounts."""
    targets = [volume.rpartition(":ro")[0] or volume for volume in SERVICES[name]["volumes"]]
    return {target.rpartition(":")[2].removeprefix(HOME.rstrip("/")).removeprefix("/") for target in targets}


def test_a_socket_on_a_read_only_mount_can_be_asked_and_not_replaced(tmp_path: Path) -> None:
    """As edge and load have theirs: the kernel itself is asked, in a mount namespace."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        ask = f"import socket; socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r}); print('asked')"
        script = (
            f'mount --bind "{tmp_path}" "{tmp_path}" && mount -o remount,ro,bind "{tmp_path}" && echo mounted || exit\n'
            f'{sys.executable} -c "{ask}" && ! mv "{tmp_path}/s" "{tmp_path}/other"'
        )
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if not done.stdout:
        pytest.skip(f"no mount namespaces here: {done.stderr}")
    assert (done.returncode, done.stdout) == (0, "mounted\nasked\n"), done.stderr
    assert "Read-only file system" in done.stderr


def settings(name: str) -> Config:
    """Of a container: the file with its own variables over it. Raises ConfigError for one that is no setting."""
    return load(DEPLOY / "fleetgate.toml", SERVICES[name].get("environment", {}))


def test_no_container_sees_what_its_process_must_never_hold() -> None:
    """As the table of processes has it; the directories that each needs are there."""
    assert seen("edge") >= {"edge", "keys", "control", "spool", "evidence"}
    assert not seen("edge") & {"authority", "audit", "clickhouse", "owner", "reader", ""}
    assert seen("load") >= {"control", "spool", "clickhouse", "public"}
    assert not seen("load") & {"edge", "keys", "authority", "audit", "evidence", "owner", ""}
    assert seen("signer") >= {"authority", "audit", "public", "keys", "control"}
    assert not seen("signer") & {"edge", "spool", "evidence", "clickhouse", ""}


def test_edge_and_load_see_a_socket_each_and_replace_none() -> None:
    """Whoever can ask where heads are signed can have signed what was never loaded: that is load alone."""
    config = settings("signer")
    signing, renewal = (str(Path(path).parent) for path in (config.signer.socket, config.signer.renewal_socket))
    mounts = {
        name: {found[1] for volume in SERVICES[name]["volumes"] if (found := re.search(r":(/run/.*)", volume))}
        for name in OURS
    }
    assert mounts.pop("signer") == {signing, renewal}
    assert {name: found for name, found in mounts.items() if found} == {
        "edge": {f"{renewal}:ro"},
        "load": {f"{signing}:ro"},
        "operator": {f"{signing}:ro", f"{renewal}:ro"},  # `config check` looks whether they are there
    }


@pytest.mark.parametrize("name", OURS)
def test_each_container_has_a_configuration(name: str) -> None:
    """Its variables are settings, and the password that it connects with is mounted."""
    config = settings(name)
    if "telemetry" in SERVICES[name].get("networks", ()):
        assert config.clickhouse.url == "http://clickhouse:8123"
        assert {config.clickhouse.token_file.partition("/")[0], ""} & seen(name)


def test_the_users_are_those_that_clickhouse_has() -> None:
    """And the server gets the digest of each."""
    file = ET.parse(DEPLOY / "clickhouse" / "users.d" / "fleetgate.xml").getroot()
    users = file.find("users")
    assert users is not None
    assert {settings(name).clickhouse.user for name in ("load", "migrate", "operator")} < {user.tag for user in users}
    wanted = {each.get("from_env") for each in file.iter("password_sha256_hex")}
    assert wanted == set(PASSWORDS) == {name for name in SERVICES["clickhouse"]["environment"] if "SHA256" in name}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_is_kept_in_memory_is_bounded(name: str) -> None:
    """A file system in memory without a size takes half of the machine's, and a log in it grows."""
    for mount in SERVICES[name].get("tmpfs", ()):
        assert re.search(r"[:,]size=\d+m\b", mount), mount


def test_clickhouse_logs_to_its_output_alone() -> None:
    """Whose size compose bounds."""
    [logger] = ET.parse(DEPLOY / "clickhouse" / "config.d" / "fleetgate.xml").getroot()
    assert {each.tag: each.get("remove") or each.text for each in logger if each.tag != "level"} == {
        "console": "1",
        "log": "remove",
        "errorlog": "remove",
    }
    mounted = [volume for volume in SERVICES["clickhouse"]["volumes"] if "config.d" in volume]
    assert mounted == ["./clickhouse/config.d/fleetgate.xml:/etc/clickhouse-server/config.d/fleetgate.xml:ro"]
    assert SERVICES["clickhouse"]["logging"]["options"].keys() == {"max-size", "max-file"}


def test_prometheus_asks_where_edge_and_load_answer() -> None:
    """Targets are services with those ports, on a network that both are on."""
    scrapes = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = [target for scrape in scrapes for each in scrape["static_configs"] for target in each["targets"]]
    assert sorted(targets) == ["edge:9101", "load:9102"]
    listens = {"edge": settings("edge").edge.admin_listen, "load": settings("load").load.admin_listen}
    for target in targets:
        name, port = host_and_port("", target)
        assert listens[name] == f"0.0.0.0:{port}"
        assert {"admin"} == set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_what_is_mounted_from_here_exists() -> None:
    """Else an engine would make an empty directory in its place."""
    sources = [volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    here = [source for source in sources if source.startswith("./")]
    assert here
    assert [source for source in here if not (DEPLOY / source).exists()] == []


def stages() -> list[str]:
    return re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]


def test_the_image_is_built_in_one_stage_and_run_in_another() -> None:
    """Of the same Python, as nobody, and without what only builds."""
    build, final = stages()
    assert build.split()[0] == final.split()[0]
    assert final.index("USER 10001:10001") < final.index("ENTRYPOINT")
    assert "pip" not in final
    assert "--require-hashes" in build


def test_what_the_image_is_made_of_exists_and_is_let_in() -> None:
    """Every file that is copied; and the file of what is left out names the same, so that no key comes along."""
    build, _ = stages()
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", build, re.MULTILINE) for word in line.split()}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert "*" in lines


def test_the_image_has_what_the_tests_have() -> None:
    """Each version in the image's lock stands in that of the development environment too; none is only for tests."""
    pins = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)
    image = set(pins.findall((DEPLOY / "requirements.lock").read_text()))
    assert image <= set(pins.findall((ROOT / "requirements.lock").read_text()))
    assert not {name for name, _ in image} & {"pytest", "mypy", "ruff", "hypothesis", "locust"}
