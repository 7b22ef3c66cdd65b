"""Paths from a leaf to the trust bundle, found by the gate itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from tests.authorities import CA, DAY, Leaf, now_ms

from fleetgate.control.chain import MAX_INTERMEDIATES, PathError, Paths

ROOT = CA.root()
ISSUING = ROOT.below("issuing", path_length=0)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def path(leaf: Leaf, *bundle: CA) -> list[str]:
    found = Paths([ca.certificate for ca in bundle]).verified(leaf.certificate, leaf.above, now_ms())
    return [one.subject.rfc4514_string() for one in found]


def test_a_path_goes_up_as_far_as_the_bundle_does() -> None:
    """To the root where it is there, whichever of them ends the validation; else to the issuing CA that is trusted."""
    leaf = ISSUING.leaf()
    assert path(leaf, ROOT) == path(leaf, ROOT, ISSUING) == path(leaf, ISSUING, ROOT)
    assert path(leaf, ROOT)[1:] == ["CN=issuing", "CN=root"]
    assert path(leaf, ISSUING)[1:] == ["CN=issuing"]


def test_a_path_goes_up_however_deep_it_began_and_not_in_circles() -> None:
    """Many CAs below an intermediate do not hide its root; two that vouch for each other are passed once."""
    deep = ROOT
    for number in range(12):
        deep = deep.below(f"CA {number}")
    below_root = [deep.certificate, *deep.above]
    assert Paths([ROOT.certificate, below_root[-1]]).up(below_root)[-1] == ROOT.certificate
    first, second = CA.root("first"), CA.root("second")
    circle = [first.cross(second).certificate, second.cross(first).certificate]
    assert list(Paths(circle).up(circle[:1])) == circle


HOSTILE: dict[str, Callable[[], Leaf]] = {
    "self-signed": lambda: CA.root("car").leaf(),
    "of another authority": lambda: CA.root("root").below("issuing").leaf(),
    "of an expired intermediate": lambda: ROOT.below("old", start_s=-2 * DAY, end_s=-DAY).leaf(),
    "of one that is not valid yet": lambda: ROOT.below("new", start_s=DAY).leaf(),
    "expired": lambda: ISSUING.leaf(start_s=-2 * DAY, end_s=-DAY),
    "not valid yet": lambda: ISSUING.leaf(start_s=DAY),
    "of a CA too deep": lambda: ISSUING.below("sub").leaf(),
    "of a leaf": lambda: CA(ISSUING.leaf().certificate, ISSUING.key, (ISSUING.certificate,)).leaf(),
    "a CA certificate": lambda: ISSUING.leaf(ca=True),
    "of a CA that may not sign certificates": lambda: ROOT.below("mute", bits=("crl_sign",)).leaf(),
    "of a CA with something critical": lambda: ROOT.below("odd", extensions=[(UNKNOWN, True)]).leaf(),
    "with something critical": lambda: ISSUING.leaf(extensions=[(UNKNOWN, True)]),
    "of a CA for other URIs": lambda: ROOT.below(
        "narrow", extensions=[(x509.NameConstraints([x509.UniformResourceIdentifier("other.example")], None), True)]
    ).leaf(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_there_is_no_path(name: str) -> None:
    """A sentence says so, whatever it was."""
    with pytest.raises(PathError, match="no path"):
        path(HOSTILE[name](), ROOT)


def test_intermediates_are_bounded() -> None:
    """Whoever may bring certificates along brings few."""
    leaf = ISSUING.leaf()
    with pytest.raises(PathError, match="more than"):
        Paths([ROOT.certificate]).verified(leaf.certificate, [ISSUING.certificate] * (MAX_INTERMEDIATES + 1), now_ms())


def test_many_cas_of_one_name_do_not_hold_it_up() -> None:
    """Each of them could be the issuer of each; only one is."""
    twins = [ROOT.below("issuing").certificate for _ in range(MAX_INTERMEDIATES - 1)]
    leaf = ISSUING.leaf()
    found = Paths([ROOT.certificate]).verified(leaf.certificate, [*twins, ISSUING.certificate], now_ms())
    assert found[1] == ISSUING.certificate
