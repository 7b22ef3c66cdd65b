"""The public vectors of path validation and revocation, through the gate's own verifier.

NIST's PKITS as `cryptography-vectors` carries it, at a fixed time: section 4.4 (revocation) with the lists of each test
as the configured sources, and the path tests of sections 4.1, 4.2, 4.3, 4.5, 4.6, 4.7, 4.13 and 4.16. Sections on
policies, DSA, distribution points, deltas and indirect lists are about what this gate refuses as a whole. Where the
gate is stricter than the suite, or asks less, the case says why (docs/adr/0009).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from tests.authorities import usage

from fleetgate.control.chain import PathError, Paths
from fleetgate.control.profile import issuance_of
from fleetgate.control.revocation import ListError, RevocationLists, read_list

VECTORS = Path(cryptography_vectors.__file__).parent / "x509"
PKITS = VECTORS / "PKITS_data"
NOW_MS = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1000
ROOT = "TrustAnchorRootCertificate"

GOOD, REVOKED, UNKNOWN = "good", "revoked", "unknown"
NO_PATH, LIST_REFUSED = "no path", "list refused"


@cache
def certificate(name: str) -> x509.Certificate:
    return x509.load_der_x509_certificate((PKITS / "certs" / f"{name}.crt").read_bytes())


def told(leaf: str, cas: list[str], lists: list[str]) -> str:
    """What an edge that trusts the root and these CAs, with these lists, would say of the leaf."""
    try:
        path = Paths([certificate(ROOT)]).verified(certificate(leaf), [certificate(name) for name in cas], NOW_MS)
    except PathError:
        return NO_PATH
    bundle = [certificate(ROOT), *(certificate(name) for name in cas)]
    try:
        found = [read_list((PKITS / "crls" / f"{name}.crl").read_bytes(), bundle, NOW_MS) for name in lists]
    except ListError:
        return LIST_REFUSED
    steps = [issuance_of(*step) for step in pairwise(path)]
    return RevocationLists(found).status(steps, NOW_MS).name.lower()


# Test of section 4.4, its CA, the lists of that CA, what the gate says. A refused list does not let an edge start.
REVOCATION = [
    ("InvalidMissingCRLTest1EE", "NoCRLCACert", [], GOOD),  # asks less: an issuer without a list is not asked about
    ("InvalidRevokedCATest2EE", "RevokedsubCACert", ["GoodCACRL", "RevokedsubCACRL"], REVOKED),
    ("InvalidRevokedEETest3EE", "GoodCACert", ["GoodCACRL"], REVOKED),
    ("InvalidBadCRLSignatureTest4EE", "BadCRLSignatureCACert", ["BadCRLSignatureCACRL"], LIST_REFUSED),
    ("InvalidBadCRLIssuerNameTest5EE", "BadCRLIssuerNameCACert", ["BadCRLIssuerNameCACRL"], LIST_REFUSED),
    ("InvalidWrongCRLTest6EE", "WrongCRLCACert", ["WrongCRLCACRL"], GOOD),  # as in 1: it is a good list, of the root
    ("ValidTwoCRLsTest7EE", "TwoCRLsCACert", ["TwoCRLsCAGoodCRL"], GOOD),
    ("InvalidUnknownCRLEntryExtensionTest8EE", "UnknownCRLEntryExtensionCACert", ["UnknownCRLEntryExtensionCACRL"],
     LIST_REFUSED),
    ("InvalidUnknownCRLExtensionTest9EE", "UnknownCRLExtensionCACert", ["UnknownCRLExtensionCACRL"], LIST_REFUSED),
    ("InvalidUnknownCRLExtensionTest10EE", "UnknownCRLExtensionCACert", ["UnknownCRLExtensionCACRL"], LIST_REFUSED),
    ("InvalidOldCRLnextUpdateTest11EE", "OldCRLnextUpdateCACert", ["OldCRLnextUpdateCACRL"], UNKNOWN),
    ("Invalidpre2000CRLnextUpdateTest12EE", "pre2000CRLnextUpdateCACert", ["pre2000CRLnextUpdateCACRL"], UNKNOWN),
    ("ValidGeneralizedTimeCRLnextUpdateTest13EE", "GeneralizedTimeCRLnextUpdateCACert",
     ["GeneralizedTimeCRLnextUpdateCACRL"], GOOD),
    ("ValidNegativeSerialNumberTest14EE", "NegativeSerialNumberCACert", ["NegativeSerialNumberCACRL"], GOOD),
    # The serial number of the next leaf is negative, which the path validation refuses already.
    ("InvalidNegativeSerialNumberTest15EE", "NegativeSerialNumberCACert", ["NegativeSerialNumberCACRL"], NO_PATH),
    ("ValidLongSerialNumberTest16EE", "LongSerialNumberCACert", ["LongSerialNumberCACRL"], GOOD),
    ("ValidLongSerialNumberTest17EE", "LongSerialNumberCACert", ["LongSerialNumberCACRL"], GOOD),
    ("InvalidLongSerialNumberTest18EE", "LongSerialNumberCACert", ["LongSerialNumberCACRL"], REVOKED),
    # Stricter in 19: a key that signs lists only is not taken, so these lists are refused whatever they say.
    ("ValidSeparateCertificateandCRLKeysTest19EE", "SeparateCertificateandCRLKeysCertificateSigningCACert",
     ["SeparateCertificateandCRLKeysCRL"], LIST_REFUSED),
    ("InvalidSeparateCertificateandCRLKeysTest20EE", "SeparateCertificateandCRLKeysCertificateSigningCACert",
     ["SeparateCertificateandCRLKeysCRL"], LIST_REFUSED),
    ("InvalidSeparateCertificateandCRLKeysTest21EE", "SeparateCertificateandCRLKeysCA2CertificateSigningCACert",
     ["SeparateCertificateandCRLKeysCA2CRL"], LIST_REFUSED),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # of test 15
@pytest.mark.parametrize(("leaf", "ca", "lists", "says"), REVOCATION, ids=[case[0] for case in REVOCATION])
def test_section_4_4(leaf: str, ca: str, lists: list[str], says: str) -> None:
    """Each test of the section, with the root's list beside the CA's."""
    cas = ["GoodCACert", ca] if ca == "RevokedsubCACert" else [ca]
    assert told(leaf, cas, ["TrustAnchorRootCRL", *lists]) == says


PATH_LENGTH_6 = ["pathLenConstraint6CACert", "pathLenConstraint6subCA0Cert", "pathLenConstraint6subsubCA00Cert"]
LONG = ["pathLenConstraint6CACert", "pathLenConstraint6subCA4Cert", "pathLenConstraint6subsubCA41Cert",
        "pathLenConstraint6subsubsubCA41XCert"]  # fmt: skip
# Path tests that the suite calls valid, and their CAs.
VALID = {
    "ValidCertificatePathTest1EE": ["GoodCACert"],
    "Validpre2000UTCnotBeforeDateTest3EE": ["GoodCACert"],
    "ValidGeneralizedTimenotAfterDateTest8EE": ["GoodCACert"],
    "ValidNameUIDsTest6EE": ["UIDCACert"],
    "ValidRFC3280MandatoryAttributeTypesTest7EE": ["RFC3280MandatoryAttributeTypesCACert"],
    "ValidRFC3280OptionalAttributeTypesTest8EE": ["RFC3280OptionalAttributeTypesCACert"],
    "ValidUTF8StringEncodedNamesTest9EE": ["UTF8StringEncodedNamesCACert"],
    "ValidBasicSelfIssuedOldWithNewTest1EE": ["BasicSelfIssuedNewKeyCACert", "BasicSelfIssuedNewKeyOldWithNewCACert"],
    "ValidkeyUsageNotCriticalTest3EE": ["keyUsageNotCriticalCACert"],
    "ValidpathLenConstraintTest7EE": ["pathLenConstraint0CACert"],
    "ValidpathLenConstraintTest13EE": LONG,
    "ValidUnknownNotCriticalCertificateExtensionTest1EE": [],
    "ValidDNSnameConstraintsTest30EE": ["nameConstraintsDNS1CACert"],
    "ValidRFC822nameConstraintsTest21EE": ["nameConstraintsRFC822CA1Cert"],
}
# Valid ones that the gate refuses, and why.
STRICTER = {
    "ValidGeneralizedTimenotBeforeDateTest4EE": ["GoodCACert"],  # dates up to 2049 must be UTCTime
    "ValidNameChainingWhitespaceTest3EE": ["GoodCACert"],  # names are compared byte by byte
    "ValidNameChainingCapitalizationTest5EE": ["GoodCACert"],  # the same
    "ValidUTF8StringCaseInsensitiveMatchTest11EE": ["UTF8StringCaseInsensitiveMatchCACert"],  # the same
    "ValidRolloverfromPrintableStringtoUTF8StringTest10EE": ["RolloverfromPrintableStringtoUTF8StringCACert"],
    "ValidbasicConstraintsNotCriticalTest4EE": ["basicConstraintsNotCriticalCACert"],  # RFC 5280: it must be critical
    "ValidpathLenConstraintTest8EE": ["pathLenConstraint0CACert"],  # the leaf is a CA
    "ValidDNnameConstraintsTest1EE": ["nameConstraintsDN1CACert"],  # constraints on directory names: all refused
    "ValidURInameConstraintsTest34EE": ["nameConstraintsURI1CACert"],  # the same of URIs
}
INVALID = {
    "InvalidCASignatureTest2EE": ["BadSignedCACert"],
    "InvalidEESignatureTest3EE": ["GoodCACert"],
    "InvalidCAnotBeforeDateTest1EE": ["BadnotBeforeDateCACert"],
    "InvalidEEnotBeforeDateTest2EE": ["GoodCACert"],
    "InvalidCAnotAfterDateTest5EE": ["BadnotAfterDateCACert"],
    "InvalidEEnotAfterDateTest6EE": ["GoodCACert"],
    "Invalidpre2000UTCEEnotAfterDateTest7EE": ["GoodCACert"],
    "InvalidNameChainingTest1EE": ["GoodCACert"],
    "InvalidNameChainingOrderTest2EE": ["NameOrderingCACert"],
    "InvalidMissingbasicConstraintsTest1EE": ["MissingbasicConstraintsCACert"],
    "InvalidcAFalseTest2EE": ["basicConstraintsCriticalcAFalseCACert"],
    "InvalidcAFalseTest3EE": ["basicConstraintsNotCriticalcAFalseCACert"],
    "InvalidpathLenConstraintTest5EE": ["pathLenConstraint0CACert", "pathLenConstraint0subCACert"],
    "InvalidpathLenConstraintTest6EE": ["pathLenConstraint0CACert", "pathLenConstraint0subCACert"],
    "InvalidpathLenConstraintTest9EE": PATH_LENGTH_6,
    "InvalidpathLenConstraintTest10EE": PATH_LENGTH_6,
    "InvalidkeyUsageCriticalkeyCertSignFalseTest1EE": ["keyUsageCriticalkeyCertSignFalseCACert"],
    "InvalidkeyUsageNotCriticalkeyCertSignFalseTest2EE": ["keyUsageNotCriticalkeyCertSignFalseCACert"],
    "InvalidUnknownCriticalCertificateExtensionTest2EE": [],
    "InvalidDNnameConstraintsTest2EE": ["nameConstraintsDN1CACert"],
    "InvalidDNnameConstraintsTest15EE": ["nameConstraintsDN3CACert", "nameConstraintsDN3subCA1Cert"],
    "InvalidDNSnameConstraintsTest31EE": ["nameConstraintsDNS1CACert"],
    "InvalidDNSnameConstraintsTest33EE": ["nameConstraintsDNS2CACert"],
    "InvalidRFC822nameConstraintsTest22EE": ["nameConstraintsRFC822CA1Cert"],
    "InvalidURInameConstraintsTest35EE": ["nameConstraintsURI1CACert"],
    "InvalidURInameConstraintsTest37EE": ["nameConstraintsURI2CACert"],
}


@pytest.mark.parametrize(
    ("leaf", "cas", "says"),
    [
        *((leaf, cas, GOOD) for leaf, cas in VALID.items()),
        *((leaf, cas, NO_PATH) for leaf, cas in (STRICTER | INVALID).items()),
    ],
)
def test_paths(leaf: str, cas: list[str], says: str) -> None:
    """No invalid path is found; a valid one that is not found is one of those listed."""
    assert told(leaf, cas, []) == says


CUSTOM = sorted(
    path for path in (VECTORS / "custom").iterdir() if "crl" in path.name and path.suffix in (".pem", ".der")
)


def ca_of(name: x509.Name, public_key: CertificatePublicKeyTypes) -> x509.Certificate:
    """A CA certificate that says it has this name and key."""
    made = (
        x509.CertificateBuilder(name, name, public_key, 1)
        .not_valid_before(datetime(2010, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return made.sign(generate_private_key(SECP256R1()), SHA256())


@pytest.mark.parametrize("path", CUSTOM, ids=lambda path: path.stem)
def test_a_custom_list_is_refused_with_a_sentence(path: Path) -> None:
    """None is signed by a CA that is trusted here; also where one has the name, it is refused and nothing else."""
    content = path.read_bytes()
    with pytest.raises(ListError, match=r"^it|^its"):
        read_list(content, [certificate(ROOT)], NOW_MS)
    with contextlib.suppress(
        ValueError, x509.InvalidVersion
    ):  # not even its issuer can be read, or it is a certificate
        parsed = x509.load_pem_x509_crl(content) if path.suffix == ".pem" else x509.load_der_x509_crl(content)
        with pytest.raises(ListError, match=r"^it|^its"):
            read_list(content, [ca_of(parsed.issuer, certificate(ROOT).public_key())], NOW_MS)


@pytest.mark.parametrize(("name", "forged"), [("valid_signature", False), ("invalid_signature", True)])
def test_a_bad_signature_is_known_from_a_good_one(name: str, forged: bool) -> None:
    """Two lists of a CA of one name; one was altered after it was signed."""
    signer = x509.load_pem_x509_certificate((VECTORS / "custom" / f"{name}_cert.pem").read_bytes())
    content = (VECTORS / "custom" / f"{name}_crl.pem").read_bytes()
    bundle = [ca_of(signer.subject, signer.public_key())]
    if forged:
        with pytest.raises(ListError, match="forged"):
            read_list(content, bundle, NOW_MS)
    else:
        assert read_list(content, bundle, NOW_MS).number is not None


def test_the_vectors_are_those_of_the_library() -> None:
    """One version: what it has learnt to refuse is what is tried."""
    assert cryptography_vectors.__version__ == importlib.metadata.version("cryptography")
