"""Root keys over their life: a new one, the end of an old one, and the emergency.

Decides when a root key may be added or ended: that follows from the credentials on record. Each step is one transaction
of the control records, which holds others off, with the audit entry in it; the file is replaced at its end, so that
nothing is told that did not happen. What was killed between that and the commit is done again for the entry alone. The
edge takes the new file by itself (`accept.material`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, case, func, or_, select

from fleetgate.clock import Entropy
from fleetgate.control.keyring import MAX_KID, ROOT_BYTES, Root, RootState, encode_roots, read_roots
from fleetgate.control.reason import check_reason
from fleetgate.control.records import CredentialStatus
from fleetgate.control.schema import audit, credentials
from fleetgate.control.secretfile import replace_secret
from fleetgate.control.store import Store, Write
from fleetgate.errors import ConfigError, Conflict, NotFound
from fleetgate.judge.freshness import MAX_AGE_MS

_RETIRE, _WITHDRAW = "keyring_retire", "keyring_withdraw"


class RootSummary(Struct, frozen=True):
    """A line of `keyring list`. `credentials` are the active ones under it; `needed_until_ms` is when the last message
    signed under a former one is too old to be taken, where that is still to come."""

    kid: int
    state: str
    created_at_ms: int
    credentials: int
    needed_until_ms: int | None


def list_roots(store: Store, path: Path) -> list[RootSummary]:
    """Oldest first. Raises ConfigError for a keyring that cannot be used."""
    roots = read_roots(path)
    now_ms = store.clock.now_ms()
    active, ended_ms = _active(now_ms), func.max(credentials.c.ended_at_ms).filter(_former(now_ms))
    count = func.sum(case((active, 1), else_=0))
    query = select(credentials.c.kid, count.label("active"), ended_ms.label("ended_ms")).group_by(credentials.c.kid)
    found = {row.kid: row for row in store.rows(query)}
    return [
        RootSummary(
            kid=kid,
            state=root.state,
            created_at_ms=root.created_at,
            credentials=found[kid].active if kid in found else 0,
            needed_until_ms=_needed_until(found[kid].ended_ms if kid in found else None, now_ms),
        )
        for kid, root in sorted(roots.items())
    ]


def rotate(write: Write, path: Path, entropy: Entropy) -> int:
    """Adds a root key, which new credentials are made under once every edge knows it (`keyring.SETTLING_MS`); returns
    its key id. Nothing ends."""
    roots = read_roots(path)
    kid = max(roots, default=0) + 1
    if kid > MAX_KID:
        raise Conflict(f"{path} has a root key {MAX_KID}, the last number there is")
    write.note("keyring_rotate", "", f"root/{kid}", {})
    _replace(path, roots | {kid: Root(entropy(ROOT_BYTES), write.now_ms, RootState.ACTIVE)})
    return kid


def retire(write: Write, path: Path, kid: int) -> None:
    """Ends a root key that nobody needs any more. Raises NotFound, and Conflict where somebody does."""
    roots = read_roots(path)
    root = _root(roots, path, kid)
    if root.state is not RootState.ACTIVE and (root.state is RootState.WITHDRAWN or _is_noted(write, _RETIRE, kid)):
        raise Conflict(f"root key {kid} is {root.state} already")
    _check_not_newest(roots, kid)
    count = _count_active(write, kid)
    if count:
        raise Conflict(
            f"root key {kid} is in use: {count} active credentials are under it; renew those devices first "
            "(`fleetgate device list` shows them), or revoke them"
        )
    last = select(func.max(credentials.c.ended_at_ms)).where(credentials.c.kid == kid, _former(write.now_ms))
    row = write.row(last)
    until_ms = _needed_until(row[0] if row is not None else None, write.now_ms)
    if until_ms is not None:
        day = datetime.fromtimestamp(until_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
        raise Conflict(
            f"root key {kid} is needed until {day}: what was signed under it before the last renewal may still come"
        )
    write.note(_RETIRE, "", f"root/{kid}", {})
    _replace(path, roots | {kid: msgspec.structs.replace(root, state=RootState.RETIRED)})


def withdraw(write: Write, path: Path, kid: int, reason: str) -> int:
    """Ends a root key at once, because somebody else has it; returns how many active credentials were under it, whose
    devices are refused until they are given new keys. Raises NotFound, Conflict."""
    check_reason(reason)
    roots = read_roots(path)
    root = _root(roots, path, kid)
    if root.state is RootState.WITHDRAWN and _is_noted(write, _WITHDRAW, kid):
        raise Conflict(f"root key {kid} is withdrawn already")
    _check_not_newest(roots, kid)
    count = _count_active(write, kid)
    write.note(_WITHDRAW, "", f"root/{kid}", {"reason": reason, "active_credentials": count})
    _replace(path, roots | {kid: msgspec.structs.replace(root, state=RootState.WITHDRAWN)})
    return count


def _root(roots: dict[int, Root], path: Path, kid: int) -> Root:
    if kid not in roots:
        raise NotFound(f"{path} has no root key {kid}; `fleetgate keyring list` shows all")
    return roots[kid]


def _is_noted(write: Write, action: str, kid: int) -> bool:
    """Whether the step got as far as its commit. Where it was killed behind the new file, the same again notes it."""
    of_root = and_(audit.c.action == action, audit.c.object == f"root/{kid}")
    return write.row(select(audit.c.action).where(of_root)) is not None


def _check_not_newest(roots: dict[int, Root], kid: int) -> None:
    active = [number for number, root in roots.items() if root.state is RootState.ACTIVE]
    if kid == max(active, default=kid):
        raise Conflict(
            f"new credentials are made under root key {kid}: add another first with `fleetgate keyring rotate`"
        )


def _replace(path: Path, roots: dict[int, Root]) -> None:
    try:
        replace_secret(path, encode_roots(roots))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; it is as it was") from None


def _count_active(write: Write, kid: int) -> int:
    count = select(func.count()).where(credentials.c.kid == kid, _active(write.now_ms))
    row = write.row(count)
    return 0 if row is None else int(row[0])


def _active(now_ms: int) -> ColumnElement[bool]:
    """Credentials that messages may be signed under from now on."""
    not_revoked = or_(credentials.c.revoked_from_ms.is_(None), credentials.c.revoked_from_ms > now_ms)
    return and_(credentials.c.status == CredentialStatus.ACTIVE, credentials.c.not_after_ms > now_ms, not_revoked)


def _former(now_ms: int) -> ColumnElement[bool]:
    """Credentials of which retries may come."""
    return and_(credentials.c.status == CredentialStatus.FORMER, credentials.c.ended_at_ms > now_ms - MAX_AGE_MS)


def _needed_until(ended_ms: int | None, now_ms: int) -> int | None:
    until_ms = None if ended_ms is None else ended_ms + MAX_AGE_MS
    return until_ms if until_ms is not None and until_ms > now_ms else None
