"""HAProxy and nginx as Debian has them, run in the foreground with the page's configuration."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.gate import Gate, until
from tests.integration.proxy.page import block, put_in
from tests.integration.proxy.stage import ENDS, PASSES, ProxyAuthority

from fleetgate.demo.prepare import free_ports

STOP_SECONDS = 10.0
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"  # where Debian puts daemons, and not everybody looks

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy", path=PATH) is None, reason="haproxy is not installed")
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path=PATH) is None or not NGINX_MODULE.exists(),
    reason="nginx or libnginx-mod-http-js is not installed",
)


class Front:
    """A proxy in front of the gate: where vehicles connect to it."""

    def __init__(self) -> None:
        self.mqtt_port, self.https_port = free_ports(2)


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """The daemon, until the block ends; it must listen on `port`."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | {"PATH": PATH}
        )

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(listens, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def lay_out(directory: Path, edge: Gate, proxies: ProxyAuthority) -> None:
    """The files that the page has an operator bring to the proxy, under its names."""
    pki = edge.home.directory / "pki"
    certificate, key = (path.read_bytes() for path in proxies.pinned)
    files = {
        "trust.pem": (pki / "trust.pem").read_bytes(),
        "ca.pem": (pki / "root.pem").read_bytes(),
        "gate.pem": (pki / "server.pem").read_bytes(),
        "gate.key": (pki / "server.key").read_bytes(),
        "gate-both.pem": (pki / "server.pem").read_bytes() + (pki / "server.key").read_bytes(),
        "proxy.pem": certificate,
        "proxy.key": key,
        "proxy-both.pem": certificate + key,
        "clientcert.js": block("js", "clientcert.js").encode(),
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)


@contextmanager
def haproxy(title: str, edge: Gate, directory: Path, instead: dict[str, str] | None = None) -> Iterator[Front]:
    """HAProxy with the page's configuration of that title; `instead` replaces parts of it."""
    front = Front()
    text = put_in(block("haproxy", title), instead or {})
    ends = title.endswith("TLS ended")
    facts = {
        "bind :8443": f"bind 127.0.0.1:{front.https_port}",
        "10.0.0.20:8443": f"127.0.0.1:{edge.https_port} source {ENDS if ends else PASSES}",
    }
    if ends:
        facts |= {"/etc/haproxy": str(directory), "gate.example.org": "localhost"}
    else:
        facts |= {
            "bind :8883": f"bind 127.0.0.1:{front.mqtt_port}",
            "10.0.0.20:8883": f"127.0.0.1:{edge.mqtt_port} source {PASSES}",
        }
    file = directory / "haproxy.cfg"
    file.write_text(put_in(text, facts))
    with running(["haproxy", "-db", "-f", str(file)], front.https_port, directory / "haproxy.log"):
        yield front


@contextmanager
def nginx(edge: Gate, directory: Path, instead: dict[str, str] | None = None) -> Iterator[Front]:
    """nginx with the page's configuration, as one process of ours that writes nothing outside `directory`."""
    front = Front()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    facts = {
        "http {\n": f"http {{\n    access_log off;\n{temporary}",
        "/etc/nginx": str(directory),
        "listen 8443": f"listen 127.0.0.1:{front.https_port}",
        "10.0.0.20:8443": f"127.0.0.1:{edge.https_port}",
        "proxy_pass https://edge;": f"proxy_pass https://edge;\nproxy_bind {ENDS};",
        "gate.example.org": "localhost",
    }
    file = directory / "nginx.conf"
    file.write_text(put_in(put_in(block("nginx", "nginx.conf"), instead or {}), facts))
    globals_ = f"daemon off; master_process off; pid {directory}/nginx.pid;"
    command = ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(file), "-g", globals_]
    with running(command, front.https_port, directory / "nginx.log"):
        yield front
