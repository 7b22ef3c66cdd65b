"""Files replaced under a running edge, where one of them is no good, or somebody else's server is away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from cryptography import x509
from structlog.testing import capture_logs

from fleetgate.accept import material
from fleetgate.accept.lists import Source
from fleetgate.accept.material import Replacement
from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.configfile import load
from fleetgate.control.keyring import Keyring, Root, RootState, encode_roots, read_roots
from fleetgate.control.secretfile import replace_secret
from fleetgate.errors import ConfigError


@pytest.fixture
def keyring(config: Config) -> Path:
    path = config.path(config.edge.keyring)
    Keyring.create(path, SystemClock().now_ms(), os.urandom)
    return path


def withdraw_the_first(keyring: Path) -> None:
    """As `fleetgate keyring rotate` and `withdraw 1` leave the file."""
    first = read_roots(keyring)[1]
    second = Root(os.urandom(32), first.created_at + 1, RootState.ACTIVE)
    withdrawn = Root(first.root, first.created_at, RootState.WITHDRAWN)
    replace_secret(keyring, encode_roots({1: withdrawn, 2: second}))


def looked(files: Replacement) -> list[int] | None:
    """The key ids in force after two looks, between which all stood still; None where nothing is new."""
    assert files._changed() is None
    later = files._changed()
    if later is None:
        return None
    files.now = later[0]
    return sorted(files.now.keyring.roots)


def test_a_broken_file_does_not_hold_up_the_withdrawal_of_a_root_key(config: Config, keyring: Path) -> None:
    """Whoever has it and can spoil a bundle could go on. The bundle is told, and taken when it is mended."""
    bundle = config.path(config.edge.trust_bundle)
    good = bundle.read_bytes()
    files = Replacement(config, None)
    bundle.write_text("broken")
    assert looked(files) is None
    assert "edge.trust_bundle" in files.refused
    withdraw_the_first(keyring)
    assert looked(files) == [2]
    assert files._changed() is None
    assert "edge.trust_bundle" in files.refused
    bundle.write_bytes(good)
    assert looked(files) == [2]
    assert files.refused == ""


def test_a_new_list_whose_server_is_away_does_not_hold_up_the_withdrawal_of_a_root_key(
    config: Config, keyring: Path, tmp_path: Path
) -> None:
    """The keyring is taken before anybody is asked for a list, which may take half a minute."""
    file = tmp_path / "fleetgate.toml"
    file.write_text("")
    files = Replacement(load(file), file)

    def prepare(config: Config, bundle: list[x509.Certificate]) -> list[Source]:
        if config.crls:
            raise ConfigError("its server is away")
        return []

    files.prepare_lists = prepare
    file.write_text('[[crls]]\nurl = "http://127.0.0.1:1/crl"\n')
    withdraw_the_first(keyring)
    assert looked(files) == [2]
    assert files._changed() is None
    assert files.refused == "its server is away"


def test_the_log_names_the_sections_that_are_others_now(
    config: Config, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changed a limit sees that it is in force, and that nothing else changed."""
    monkeypatch.setattr(material, "LOOK_SECONDS", 0.01)
    file = tmp_path / "fleetgate.toml"
    file.write_text("")
    files = Replacement(load(file), file)

    async def change() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                files.on_replaced = lambda material, distrusts, sources: nursery.cancel_scope.cancel()
                nursery.start_soon(files.run)
                file.write_text('[limits.tenant]\nmessages = "5/s"\n')

    with capture_logs() as logged:
        trio.run(change)
    assert [(line["event"], line["sections"]) for line in logged] == [("files_replaced", ["limits"])]


def test_another_gates_keyring_does_not_come_in_by_itself_either(config: Config, keyring: Path) -> None:
    """What may follow upon what is asked all the same; and the same keyring, written again, is nothing new."""
    files = Replacement(config, None)
    content = keyring.read_bytes()
    replace_secret(keyring, encode_roots({1: Root(os.urandom(32), 0, RootState.ACTIVE)}))
    assert looked(files) is None
    assert "another one now" in files.refused
    replace_secret(keyring, content)
    assert looked(files) is None
    assert files.refused == ""
