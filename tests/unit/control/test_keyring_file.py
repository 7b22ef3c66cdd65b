"""The keyring file: whom it lets read it, what it refuses, what it never tells."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.units import NOW

from fleetgate.control.keyring import SETTLING_MS, Keyring
from fleetgate.errors import ConfigError, Conflict

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def entry(root: bytes = OLD, state: str = "active") -> dict[str, Any]:
    return {"root": base64.b64encode(root).decode(), "created_at": 1, "state": state}


def keyring_file(directory: Path, content: Any, mode: int = 0o600) -> Path:
    path = directory / "keyring.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_created_keyring_is_read_back(tmp_path: Path) -> None:
    """The root key that was made is the one that is found, under the first key id."""
    Keyring.create(tmp_path / "k", 1, lambda _: OLD)
    assert Keyring.load(tmp_path / "k").root(1) == OLD


def test_created_keyring_is_closed_to_others(tmp_path: Path) -> None:
    """A new keyring has mode 0600 whatever the umask."""
    former = os.umask(0)
    try:
        Keyring.create(tmp_path / "k", 1, os.urandom)
    finally:
        os.umask(former)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600


def test_created_keyring_is_durable_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced, and then the directory that has its name."""
    synced: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    Keyring.create(tmp_path / "k", 1, os.urandom)
    assert synced == [False, True]


def test_existing_keyring_is_never_overwritten(tmp_path: Path) -> None:
    """Making a keyring where one is leaves the old root key alone."""
    Keyring.create(tmp_path / "k", 1, lambda _: OLD)
    with pytest.raises(Conflict):
        Keyring.create(tmp_path / "k", 1, lambda _: NEW)
    assert Keyring.load(tmp_path / "k").root(1) == OLD


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o601])
def test_keyring_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Any permission for group or others makes the file unusable, and the error says chmod."""
    path = keyring_file(tmp_path, {"roots": {"1": entry()}}, mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keyring.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_keyring_of_another_user_is_refused(tmp_path: Path) -> None:
    """A keyring that another user owns may have been chosen by that user."""
    path = keyring_file(tmp_path, {"roots": {"1": entry()}})
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="another user"):
        Keyring.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_keyring_behind_another_users_link_is_refused(tmp_path: Path) -> None:
    """Who owns a symbolic link chooses the keys."""
    link = tmp_path / "link"
    link.symlink_to(keyring_file(tmp_path, {"roots": {"1": entry()}}))
    os.lchown(link, 12345, -1)
    with pytest.raises(ConfigError, match="symbolic link"):
        Keyring.load(link)


def test_pipe_in_place_of_the_keyring_does_not_hang(tmp_path: Path) -> None:
    """A named pipe is refused as no regular file instead of being waited on."""
    os.mkfifo(tmp_path / "k", 0o600)
    with pytest.raises(ConfigError, match="regular file"):
        Keyring.load(tmp_path / "k")


def test_absent_keyring_says_what_makes_it(tmp_path: Path) -> None:
    """The error for a missing file names the command that makes one."""
    with pytest.raises(ConfigError, match="fleetgate ca init"):
        Keyring.load(tmp_path / "k")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "not json",
        "[" * 100_000,
        {"roots": {}},
        {"roots": {"1": entry(OLD[:31])}},
        {"roots": {"1": entry(OLD + b"x")}},
        {"roots": {"1": entry(state="stolen")}},
        {"roots": {"1": {**entry(), "root": "AA"}}},
        {"roots": {"1": {**entry(), "extra": 1}}},
        {"roots": {"1": entry(state="retired")}},
        {"roots": {"one": entry()}},
        {"roots": {"01": entry()}},
        {"roots": {"-1": entry()}},
        {"roots": {"4294967296": entry()}},
        {"roots": {"²": entry()}},
    ],
    ids=lambda content: str(content)[:40],
)
def test_malformed_keyring_is_refused_by_name(tmp_path: Path, content: Any) -> None:
    """Whatever is wrong inside, the error names the file and is a ConfigError."""
    path = keyring_file(tmp_path, content)
    with pytest.raises(ConfigError, match=r"keyring\.json"):
        Keyring.load(path)


def test_malformed_keyring_does_not_quote_its_keys(tmp_path: Path) -> None:
    """The error for a key of the wrong length holds nothing of it."""
    path = keyring_file(tmp_path, {"roots": {"1": entry(b"secret-" * 5)}})
    with pytest.raises(ConfigError) as caught:
        Keyring.load(path)
    assert base64.b64encode(b"secret-" * 5).decode()[:8] not in str(caught.value)


def test_retired_root_verifies_nothing_but_is_known(tmp_path: Path) -> None:
    """A retired key id is in the keyring without its bytes; an unknown one is not in it."""
    keyring = Keyring.load(keyring_file(tmp_path, {"roots": {"1": entry(state="retired"), "2": entry(NEW)}}))
    assert dict(keyring.roots) == {1: None, 2: NEW}


def test_newest_active_root_is_the_one_to_issue_under(tmp_path: Path) -> None:
    """New credentials are made under the highest key id that is not retired."""
    roots = {"9": entry(), "10": entry(NEW), "11": entry(state="retired")}
    assert Keyring.load(keyring_file(tmp_path, {"roots": roots})).issuing_kid(NOW) == 10


@pytest.mark.parametrize(("age_ms", "kid"), [(0, 1), (SETTLING_MS - 1, 1), (SETTLING_MS, 2)])
def test_a_new_root_is_issued_under_once_edges_have_it(age_ms: int, kid: int) -> None:
    """Until then under the one before; where there is no other, under it at once."""
    created_ms = {1: 0, 2: NOW - age_ms}
    assert Keyring({1: OLD, 2: NEW}, created_ms=created_ms).issuing_kid(NOW) == kid
    assert Keyring({1: None, 2: NEW}, created_ms=created_ms).issuing_kid(NOW) == 2


def test_repr_tells_key_ids_only() -> None:
    """A keyring that slips into a log shows no key material."""
    assert repr(Keyring({1: OLD, 2: None})) == "Keyring(kids=[1, 2])"
