"""Revocation lists: which of them may be used, which may follow upon which, and what they say of a chain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.authorities import CA, DAY, Leaf, now_ms, usage

from fleetgate.control.profile import Issuance, issuance_of
from fleetgate.control.revocation import (
    MAX_LIST_BYTES,
    CertStatus,
    ListError,
    RevocationList,
    RevocationLists,
    read_list,
)

ROOT = CA.root()
ISSUING = ROOT.below("issuing")
OTHER = CA.root("another root")
BUNDLE = [ROOT.certificate, ISSUING.certificate]
LEAF = ISSUING.leaf()
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def read(content: bytes) -> RevocationList:
    return read_list(content, BUNDLE, now_ms())


def chain(leaf: Leaf) -> list[Issuance]:
    return [issuance_of(leaf.certificate, ISSUING.certificate), issuance_of(ISSUING.certificate, ROOT.certificate)]


def point(**said: object) -> x509.IssuingDistributionPoint:
    plain: dict[str, object] = {
        "full_name": None, "relative_name": None, "only_contains_user_certs": False, "only_contains_ca_certs": False,
        "only_some_reasons": None, "indirect_crl": False, "only_contains_attribute_certs": False,
    }  # fmt: skip
    return x509.IssuingDistributionPoint(**(plain | said))  # type: ignore[arg-type]


HERE = [x509.UniformResourceIdentifier("http://pki.example/crl")]
USABLE: dict[str, Callable[[], bytes]] = {
    "PEM": lambda: ISSUING.crl(),
    "DER": lambda: x509.load_pem_x509_crl(ISSUING.crl()).public_bytes(Encoding.DER),
    "of a root": lambda: ROOT.crl(),
    "without a number": lambda: ISSUING.crl(number=None),
    "past its nextUpdate": lambda: ISSUING.crl(this_s=-2 * DAY, next_s=-DAY),
    "with its place": lambda: ISSUING.crl(extensions=[(point(full_name=HERE), True)]),
    "with a note": lambda: ISSUING.crl(extensions=[(UNKNOWN, False)]),
    "with reasons": lambda: ISSUING.crl(
        LEAF.certificate, of_entry=[(x509.CRLReason(x509.ReasonFlags.key_compromise), False)]
    ),
}


@pytest.mark.parametrize("name", USABLE)
def test_a_list_of_a_ca_of_the_bundle_is_used(name: str) -> None:
    """In either form, with what a list may carry beside its entries; one that is stale is used for its grace."""
    assert read(USABLE[name]()).issuer in ("CN=issuing", "CN=root")


FORBIDDEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "forged: signed by another key": (lambda: ISSUING.crl(key=OTHER.key), "forged"),
    "of an issuer that is not in the bundle": (lambda: OTHER.crl(), "not in the trust bundle"),
    "of the root, under the name of the issuing CA": (lambda: ROOT.crl(name="issuing"), "forged"),
    "of the future": (lambda: ISSUING.crl(this_s=3600), "in the future"),
    "a delta": (lambda: ISSUING.crl(extensions=[(x509.DeltaCRLIndicator(1), True)]), "delta"),
    "with something critical": (lambda: ISSUING.crl(extensions=[(UNKNOWN, True)]), "1.2.3.4"),
    "with something critical in an entry": (
        lambda: ISSUING.crl(LEAF.certificate, of_entry=[(UNKNOWN, True)]), "an entry has a critical extension",
    ),
    "of others' certificates": (
        lambda: ISSUING.crl(extensions=[(point(full_name=HERE, indirect_crl=True), True)]), "other issuers",
    ),
    "with an entry of another issuer": (
        lambda: ISSUING.crl(
            LEAF.certificate, of_entry=[(x509.CertificateIssuer([x509.DirectoryName(x509.Name([]))]), True)]
        ), "other issuers",
    ),
    "for some reasons": (
        lambda: ISSUING.crl(
            extensions=[(point(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})), True)]
        ), "some reasons",
    ),
    "of attribute certificates": (
        lambda: ISSUING.crl(extensions=[(point(only_contains_attribute_certs=True), True)]), "attribute certificates",
    ),
    "of CAs only": (
        lambda: ISSUING.crl(extensions=[(point(full_name=HERE, only_contains_ca_certs=True), True)]), "no device",
    ),
    "no list at all": (lambda: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "cannot be parsed"),
    "a certificate": (lambda: ROOT.certificate.public_bytes(Encoding.PEM), "cannot be parsed"),
    "empty": (lambda: b"", "cannot be parsed"),
    "too large": (lambda: bytes(MAX_LIST_BYTES + 1), "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_list_is_refused(name: str) -> None:
    """With a sentence that says what is wrong with it."""
    made, says = FORBIDDEN[name]
    with pytest.raises(ListError, match=says):
        read(made())


def test_a_ca_that_may_not_sign_lists_signs_none() -> None:
    """Its key usage has keyCertSign, but not cRLSign."""
    mute = ROOT.below("mute", bits=("key_cert_sign",))
    with pytest.raises(ListError, match="may not sign revocation lists"):
        read_list(mute.crl(), [*BUNDLE, mute.certificate], now_ms())


def test_a_leaf_signs_no_lists() -> None:
    """Not even one of its own name: a vehicle is no CA."""
    leaf = ISSUING.leaf()
    forger = CA(leaf.certificate, leaf.key)
    with pytest.raises(ListError, match="may not sign revocation lists"):
        read_list(forger.crl(), [*BUNDLE, leaf.certificate], now_ms())


def test_of_two_cas_of_one_name_the_one_that_signed_is_meant() -> None:
    """The list of one says nothing of the other's certificates, though serial numbers may be alike."""
    twin = CA.root("issuing")
    found = read_list(twin.crl(LEAF.certificate), [*BUNDLE, twin.certificate], now_ms())
    assert RevocationLists([found]).status(chain(LEAF), now_ms()) is CertStatus.GOOD


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (lambda: ISSUING.crl(number=4), "older"),
        (lambda: ISSUING.crl(number=6, this_s=-7200), "older"),
        (lambda: ISSUING.crl(number=None, this_s=-7200), "older"),
        (lambda: ROOT.crl(number=9), "another issuer"),
    ],
    ids=["a lower number", "a higher number of an earlier time", "no number and an earlier time", "of another CA"],
)
def test_a_list_that_would_undo_a_revocation_does_not_follow(later: Callable[[], bytes], says: str) -> None:
    """Whoever holds an older list of the CA, or another's, cannot put it in the place of the one in force."""
    before = read(ISSUING.crl(LEAF.certificate, number=5, this_s=-3600))
    with pytest.raises(ListError, match=says):
        before.check_successor(read(later()))


ANOTHER = [x509.UniformResourceIdentifier("http://pki.example/crl-2")]
SCOPES: dict[str, list[tuple[x509.ExtensionType, bool]]] = {
    "of all": [],
    "of devices": [(point(only_contains_user_certs=True), True)],
    "of CAs": [(point(only_contains_ca_certs=True), True)],
    "of one part": [(point(full_name=HERE), True)],
    "of another part": [(point(full_name=ANOTHER), True)],
}


@pytest.mark.parametrize("later", SCOPES)
@pytest.mark.parametrize("before", SCOPES)
def test_a_genuine_list_of_another_scope_does_not_lift_the_revocations_of_this_one(before: str, later: str) -> None:
    """The same CA's newer list, whoever put it there: it says nothing of the certificates in the one in force."""
    first, second = (
        read_list(content, BUNDLE, now_ms(), only_cas=True)
        for content in (
            ISSUING.crl(LEAF.certificate, extensions=SCOPES[before]), ISSUING.crl(extensions=SCOPES[later]),
        )
    )  # fmt: skip
    if before == later:
        first.check_successor(second)
    else:
        with pytest.raises(ListError, match="other certificates"):
            first.check_successor(second)


def test_a_newer_list_follows() -> None:
    """Also one without a number, where the time says so."""
    before = read(ISSUING.crl(number=5, this_s=-3600))
    for later in (ISSUING.crl(number=5, this_s=-3600), ISSUING.crl(number=6), ISSUING.crl(number=None)):
        before.check_successor(read(later))


class TestStatus:
    """What the lists in force say of a chain."""

    GRACE_MS = 3_600_000

    def lists(self, *contents: bytes) -> RevocationLists:
        return RevocationLists([read(content) for content in contents], self.GRACE_MS)

    def test_a_listed_leaf_is_revoked_and_another_is_not(self) -> None:
        """By serial number, under the issuer that listed it."""
        lists = self.lists(ISSUING.crl(LEAF.certificate), ROOT.crl())
        assert lists.status(chain(LEAF), now_ms()) is CertStatus.REVOKED
        assert lists.status(chain(ISSUING.leaf()), now_ms()) is CertStatus.GOOD

    def test_a_listed_ca_takes_all_its_leaves_along(self) -> None:
        """The list of the root names the issuing CA."""
        assert self.lists(ROOT.crl(ISSUING.certificate)).status(chain(LEAF), now_ms()) is CertStatus.REVOKED

    def test_an_issuer_without_a_list_is_not_asked_about(self) -> None:
        """Revocation by record goes on without lists."""
        assert RevocationLists().status(chain(LEAF), now_ms()) is CertStatus.GOOD

    @pytest.mark.parametrize(
        ("after_s", "status", "stale"),
        [(0, CertStatus.REVOKED, False), (100, CertStatus.REVOKED, True), (3_700, CertStatus.UNKNOWN, True)],
    )
    def test_a_stale_list_is_used_for_the_grace(self, after_s: int, status: CertStatus, stale: bool) -> None:
        """And beyond it says nothing any more, of anybody: neither good nor revoked."""
        lists = self.lists(ISSUING.crl(LEAF.certificate, next_s=10))
        then_ms = now_ms() + after_s * 1000
        assert (lists.status(chain(LEAF), then_ms), lists.stale(chain(LEAF), then_ms)) == (status, stale)

    def test_one_expired_list_does_not_hide_what_another_says(self) -> None:
        """The issuing CA's list is fresh and has the leaf; the root's is beyond its grace."""
        lists = self.lists(ROOT.crl(next_s=-2 * DAY, this_s=-3 * DAY), ISSUING.crl(LEAF.certificate))
        assert lists.status(chain(LEAF), now_ms()) is CertStatus.REVOKED
        assert lists.status(chain(ISSUING.leaf()), now_ms()) is CertStatus.UNKNOWN

    def test_the_parts_of_a_divided_list_are_all_asked(self) -> None:
        """A CA that publishes two lists, each for some of its certificates."""
        lists = self.lists(ISSUING.crl(), ISSUING.crl(LEAF.certificate))
        assert lists.status(chain(LEAF), now_ms()) is CertStatus.REVOKED


GOOD = x509.load_pem_x509_crl(ISSUING.crl(LEAF.certificate)).public_bytes(Encoding.DER)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_list_is_refused_with_a_sentence(at: int, patch: bytes, cut: bool) -> None:
    """Whatever stands in the bytes; what is left of a good list is the good list."""
    damaged = GOOD[:at] + patch + (b"" if cut else GOOD[at + len(patch) :])
    if damaged != GOOD:
        with pytest.raises(ListError):
            read(damaged)


def test_the_ca_of_these_tests_is_one() -> None:
    """The refusals above are not for a mistake of the tests."""
    assert usage("crl_sign").crl_sign
    assert read(GOOD).serials == {LEAF.certificate.serial_number}
