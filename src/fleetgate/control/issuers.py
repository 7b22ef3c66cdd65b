"""Which CA may speak for which tenant: the table `[issuers]` of the configuration.

Decides for a verified chain and the tenant that its leaf names. Without entries every CA of the trust bundle speaks for
every tenant. With entries: a CA named for some tenant speaks for no other one; a tenant with an entry is spoken for by
its CAs only. So a CA that one tenant runs cannot make another's vehicles. A CA is its key: whatever other certificates
there are of it, under whatever name, it is the same one. Which CAs are trusted at all is the bundle's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256

from fleetgate.config import Config
from fleetgate.control.profile import ProfileError, key_digest_of
from fleetgate.control.records import is_id
from fleetgate.errors import ConfigError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Issuers:
    """`of_tenant` maps a tenant to the CAs that are named for it: SHA-256 of the key of each (as `Issuance.key`), or of
    the certificate where no more is known of one (as `Issuance.ca`)."""

    def __init__(self, of_tenant: Mapping[str, frozenset[bytes]]) -> None:
        self._of_tenant = of_tenant
        self._tenants: dict[bytes, set[str]] = {}
        for tenant, cas in of_tenant.items():
            for ca in cas:
                self._tenants.setdefault(ca, set()).add(tenant)

    @classmethod
    def load(cls, config: Config, bundle: Iterable[x509.Certificate]) -> Issuers:
        """A certificate named by its digest is looked up in `bundle`. Raises ConfigError naming the tenant and the
        file."""
        trusted = {ca.fingerprint(SHA256()): ca for ca in bundle}
        return cls({tenant: _cas(config, tenant, named, trusted) for tenant, named in config.issuers.items()})

    @staticmethod
    def files(config: Config) -> list[Path]:
        """The PEM files that the table names."""
        return [config.path(text) for named in config.issuers.values() for text in named if not _is_digest(text)]

    def check(self, tenant: str, cas: Collection[bytes]) -> None:
        """`cas` are the CAs of the chain: SHA-256 of the certificate and of the key of each. Raises ProfileError."""
        for ca in cas:
            if tenant not in self._tenants.get(ca, (tenant,)):
                raise ProfileError(f"an issuer of the certificate speaks for another tenant, not for {tenant}")
        named = self._of_tenant.get(tenant)
        if named is not None and named.isdisjoint(cas):
            raise ProfileError(f"no issuer of the certificate speaks for the tenant {tenant}")


def _cas(
    config: Config, tenant: str, named: Collection[str], trusted: Mapping[bytes, x509.Certificate]
) -> frozenset[bytes]:
    if not is_id(tenant):
        raise ConfigError(f"issuers: {tenant!r} is no tenant id, which matches [a-z0-9][a-z0-9._-]{{0,62}}")
    if not named:
        raise ConfigError(f"issuers.{tenant} names no CA: nobody could speak for the tenant; leave the entry out")
    found: set[bytes] = set()
    for text in named:
        if _is_digest(text):
            digest = bytes.fromhex(_plain(text))
            ca = trusted.get(digest)
            found.add(digest if ca is None else _key(ca, tenant, "edge.trust_bundle"))
        else:
            found |= _in_file(config.path(text), tenant)
    return frozenset(found)


def _in_file(path: Path, tenant: str) -> set[bytes]:
    try:
        return {_key(ca, tenant, str(path)) for ca in x509.load_pem_x509_certificates(path.read_bytes())}
    except OSError as error:
        raise ConfigError(f"issuers.{tenant}: cannot read {path} ({error.strerror})") from None
    except (ValueError, x509.InvalidVersion):
        raise ConfigError(f"issuers.{tenant}: {path} holds no certificate in PEM") from None


def _key(ca: x509.Certificate, tenant: str, where: str) -> bytes:
    try:
        return key_digest_of(ca.public_key())
    except UnsupportedAlgorithm:
        raise ConfigError(
            f"issuers.{tenant}: {where} has a CA with a key of an uncommon kind, which names nobody"
        ) from None


def _plain(text: str) -> str:
    """As `openssl x509 -fingerprint` prints it, too."""
    return text.replace(":", "").lower()


def _is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(_plain(text)) is not None
