"""Decides who takes part in a run: the fleet file, the bundles and the attacks that it names.

What they then do is `fleet`'s and `attackers`'.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fleetsim import attackers
from fleetsim import clock as clocks
from fleetsim.bundle import Bundle, read_bundle
from fleetsim.clock import Clock
from fleetsim.gate import Gate, RunError, address
from fleetsim.ledger import Ledger


class AttackerEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One attacker of a fleet file; `other` is the victim's bundle, for the kinds that need one."""

    kind: str
    device: str
    other: str | None = None


class FleetFile(msgspec.Struct, forbid_unknown_fields=True):
    """FLEET.json; bundle directories are relative to the file."""

    mqtt: str
    https: str
    vehicles: list[str]
    server_name: str = "localhost"
    attackers: list[AttackerEntry] = []


def read_fleet(path: Path) -> FleetFile:
    """Read FLEET.json. Raises RunError that names file and field."""
    try:
        return _decode(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise RunError(f"{path}: {error}") from None


def gate_of(fleet: FleetFile, path: Path) -> Gate:
    """Where a fleet file says that the gate is. Raises RunError."""
    return Gate(address(fleet.mqtt, f"{path}: mqtt"), address(fleet.https, f"{path}: https"), fleet.server_name)


def read_stage(
    root: Path, entry: AttackerEntry, gate: Gate, ledger: Ledger, clock: Clock, seed: int, seconds: float
) -> attackers.Stage:
    """One attack, ready to run; directories are relative to `root`.

    Raises RunError for an unknown kind or a missing victim, BundleError.
    """
    kind = attackers.KINDS.get(entry.kind)
    if kind is None:
        raise RunError(f"there is no attack {entry.kind!r}; the kinds are {', '.join(attackers.KINDS)}")
    if kind.needs_other and entry.other is None:
        raise RunError(f"the attack {entry.kind} needs `other`, the bundle of another vehicle")
    bundle = read_bundle(root / entry.device)
    other = read_bundle(root / entry.other) if kind.needs_other and entry.other else None
    rng = clocks.stream(seed, f"{entry.kind}/{bundle.name}")
    return attackers.Stage(entry.kind, bundle, other, gate, ledger, clock, rng, seconds)


def read_bundles(root: Path, names: Sequence[str]) -> list[Bundle]:
    """The bundles of a fleet file. Raises BundleError."""
    return [read_bundle(root / name) for name in names]


_decode = msgspec.json.Decoder(FleetFile).decode
