"""File descriptors: each connection takes one, and the spool must never be without.

A gate that runs out of them cannot open its next segment, and ends. So the limit is raised as far as the system lets
it, and the connections are limited to what is left beside a reserve.
"""

from __future__ import annotations

import resource

import msgspec

from fleetgate import log
from fleetgate.config import Edge

RESERVE = 128
"""For the spool, the databases, the admin listener, threads; measured at about 30 in use."""

_log = log.get("accept.descriptors")


def fit(settings: Edge) -> Edge:
    """The settings with limits of connections that fit the descriptors of this process."""
    wanted = settings.max_connections + settings.max_http_connections + settings.max_handshakes
    have = _raise_limit(wanted + RESERVE) - RESERVE
    if have >= wanted:
        return settings
    share = max(1, have) / wanted
    fitting = msgspec.structs.replace(
        settings,
        max_connections=max(1, int(settings.max_connections * share)),
        max_http_connections=max(1, int(settings.max_http_connections * share)),
        max_handshakes=max(1, int(settings.max_handshakes * share)),
    )
    _log.warning(
        "fewer_connections",
        why=f"{have + RESERVE} file descriptors: raise the limit (ulimit -n, LimitNOFILE) to {wanted + RESERVE}",
        max_connections=fitting.max_connections,
        max_http_connections=fitting.max_http_connections,
        max_handshakes=fitting.max_handshakes,
    )
    return fitting


def _raise_limit(wanted: int) -> int:
    """Raises the soft limit towards the hard one; the limit there is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return wanted if soft == resource.RLIM_INFINITY else soft
