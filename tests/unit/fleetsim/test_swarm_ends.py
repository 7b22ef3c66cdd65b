"""How a swarm ends: a gate that says goodbye in TLS alone, a person, a process above it, options that mean nothing."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from tests.unit.fleetsim.gate_double import GateDouble, make_pki, serving
from typer.testing import CliRunner

from fleetsim.bundle import read_bundle
from fleetsim.cli import app
from fleetsim.gate import RunError
from fleetsim.swarm_loop import Loop
from fleetsim.swarm_mqtt import MqttLane
from fleetsim.swarm_tally import Tally
from fleetsim.swarm_tls import SharedTls
from fleetsim.swarm_wire import Phase
from fleetsim.swarm_work import Shape, Work, bodies, repeated

DEADLINE_S = 60.0
CONNACK, DISCONNECT = b"\x20\x03\x00\x00\x00", b"\xe0\x02\x87\x00"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki") / "made"
    make_pki(directory)
    return directory


def say_goodbye(listener: socket.socket, pki: Path, words: bytes, behind: bytes, seen: threading.Event) -> None:
    """Takes one connection and its CONNECT; says `words` and close_notify at once; leaves TCP open until `seen`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "gate.pem", pki / "gate.key")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    sock, _ = listener.accept()
    with closing(sock):
        sock.settimeout(DEADLINE_S)
        for step in (tls.do_handshake, lambda: tls.read(1024)):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65_536))
        if words:
            tls.write(words)
        with pytest.raises(ssl.SSLWantReadError):  # the other side's close_notify, which is not waited for
            tls.unwrap()
        sock.sendall(outgoing.read() + behind)
        assert seen.wait(2 * DEADLINE_S)


@pytest.mark.parametrize("behind", [b"", b"no record of TLS"], ids=["nothing", "bytes"])
@pytest.mark.parametrize(
    ("words", "label"),
    [(b"", "closed"), (CONNACK, "closed"), (DISCONNECT, "disconnect_0x87")],
    ids=["not a word", "welcome", "disconnect"],
)
def test_a_goodbye_in_tls_ends_the_lane(pki: Path, words: bytes, label: str, behind: bytes) -> None:
    """TCP stays open, and the lane is not taken for a live one; what was said before counts."""
    device, seen = read_bundle(pki / "device"), threading.Event()
    work = Work(device, 1, repeated(bodies(Shape(), random.Random(1))), 1, lambda: 1_767_225_600_000.0)
    loop: Loop[MqttLane] = Loop(lambda _: None, lambda *_: None)
    lane = MqttLane(SharedTls("localhost").of(device), work, Tally())
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, closing(loop):
        gate = threading.Thread(target=say_goodbye, args=(listener, pki, words, behind, seen))
        gate.start()
        try:
            loop.dial(lane, listener.getsockname()[:2])
            deadline = time.monotonic() + DEADLINE_S
            while not loop.failed and time.monotonic() < deadline:
                loop.turn(0.05)
        finally:
            seen.set()
            gate.join(DEADLINE_S)
        assert dict(loop.failed) == {label: 1}
        assert (lane.phase, loop.live) == (Phase.ENDED, 0)


def hear_ctrl_c() -> None:
    """In a child before it begins: what was started behind a shell's `&` inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def running(mqtt: tuple[str, int], pki: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`fleetsim swarm` with one device of `pki`, to be measured for longer than any test."""
    devices = pki / "devices"
    devices.mkdir(exist_ok=True)
    if not (devices / "one").exists():
        (devices / "one").symlink_to(pki / "device")
    command = ("swarm", str(devices), "--connections", "1", "--mqtt", f"127.0.0.1:{mqtt[1]}", *options)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleetsim", *command), stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=hear_ctrl_c
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def told(process: asyncio.subprocess.Process, phase: str) -> None:
    assert process.stderr is not None
    while (line := await process.stderr.readline()).decode().strip() != phase:
        assert line, f"ended before {phase}"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_ends_it_at_once_while_it_connects(pki: Path, number: signal.Signals, status: int) -> None:
    """The gate takes the connection and says nothing; the deadline is two minutes away."""

    async def main() -> None:
        came = asyncio.Event()

        async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
        async with server, running(server.sockets[0].getsockname(), pki) as process:
            await came.wait()
            process.send_signal(number)
            said, _ = await process.communicate()
            assert (process.returncode, said) == (status, b"")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("phase", "options"),
    [
        ("prepared", ("--wait",)),
        ("connected", ("--seconds", "0", "--hold", "600")),
        ("measuring", ("--seconds", "600")),
    ],
)
def test_ctrl_c_ends_it_at_once(pki: Path, phase: str, options: tuple[str, ...]) -> None:
    """Wherever it is, with the exit status of an interrupted command and without a report or a traceback."""

    async def main() -> None:
        async with serving(GateDouble(), pki) as (mqtt, _), running(mqtt, pki, *options) as process:
            await told(process, phase)
            process.send_signal(signal.SIGINT)
            assert await process.communicate() == (b"", b"")
            assert process.returncode == 130

    asyncio.run(main())


@pytest.mark.parametrize(
    ("phase", "options", "measured"),
    [
        ("connected", ("--seconds", "0", "--hold", "600"), False),
        ("connected", ("--warm-up", "600"), False),
        ("measuring", ("--seconds", "600", "--warm-up", "0"), True),
    ],
    ids=["hold", "warm-up", "measuring"],
)
def test_sigterm_ends_it_early_once_it_is_connected(
    pki: Path, phase: str, options: tuple[str, ...], measured: bool
) -> None:
    """The report comes, of what there is."""

    async def main() -> None:
        async with serving(GateDouble(), pki) as (mqtt, _), running(mqtt, pki, *options) as process:
            await told(process, phase)
            process.terminate()
            said, _ = await process.communicate()
            report = json.loads(said)
            assert (process.returncode, report["connect"]["live"], report["ended"]) == (0, 1, {})
            assert ("messages_per_s" in report) == measured

    asyncio.run(main())


VOID = {
    "--signals would do nothing: with --drive": ("--drive", "--signals", "3"),
    "--columns would do nothing: with --drive": ("--drive", "--columns"),
    "--bodies would do nothing: with --drive": ("--drive", "--bodies", "file"),
    "--events would do nothing: with --bodies": ("--bodies", "file", "--events", "1"),
    "--by-path would do nothing: columns": ("--columns", "--by-path"),
    "--in-flight would do nothing: at a --rate": ("--rate", "5", "--in-flight", "2"),
    "--rate would do nothing: with --seconds 0": ("--seconds", "0", "--rate", "5"),
    "--warm-up would do nothing: with --seconds 0": ("--seconds", "0", "--warm-up", "1"),
}


@pytest.mark.parametrize(("why", "options"), VOID.items())
def test_an_option_that_would_do_nothing_is_refused(tmp_path: Path, why: str, options: tuple[str, ...]) -> None:
    """With the one that makes it void, before anything is read."""
    result = CliRunner().invoke(app, ["swarm", str(tmp_path), "--connections", "1", *options])
    assert isinstance(result.exception, RunError)
    assert str(result.exception).startswith(why)
