"""The signal catalogue: what a signal's number means and which of its values are plausible.

Reads schemas/signals.toml, which is part of the package, and checks its shape. Which readings are flagged is decided
by `load.plausibility`; that an unknown name does not refuse a message, by `judge.body`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from fleetgate.converting import converter
from fleetgate.errors import ConfigError
from fleetgate.judge.body import Bodies

NUMBERS = 2**16
"""Signal numbers are u16 and 0 is none, so arrays of this length are indexed by number."""


class Signal(Struct, frozen=True, forbid_unknown_fields=True):
    """One signal. `min` and `max` bound plausible values, `rate` the change per second; None: no bound."""

    number: Annotated[int, Meta(ge=1, lt=NUMBERS)]
    path: Annotated[str, Meta(min_length=1, max_length=128)]
    unit: str
    min: float | None = None
    max: float | None = None
    rate: float | None = None


class Catalogue:
    """All signals, by path and by number.

    `numbers` maps path to number, `paths` number to path; `bodies` opens bodies that use them. `known`, `minimum`,
    `maximum` and `rate` are arrays of length 65,536 indexed by number; a bound that is absent is infinite.
    """

    def __init__(self, signals: tuple[Signal, ...]) -> None:
        self.signals = signals
        self.numbers: Mapping[str, int] = {signal.path: signal.number for signal in signals}
        self.paths: Mapping[int, str] = {signal.number: signal.path for signal in signals}
        if not len(self.numbers) == len(self.paths) == len(signals):
            raise ConfigError("signals.toml gives a number or path twice: each signal keeps its own for ever")
        self.bodies = Bodies(self.numbers)
        self.known: NDArray[np.bool_] = np.zeros(NUMBERS, dtype=np.bool_)
        self.known[list(self.paths)] = True
        self.minimum = self._bounds({signal.number: signal.min for signal in signals}, -np.inf)
        self.maximum = self._bounds({signal.number: signal.max for signal in signals}, np.inf)
        self.rate = self._bounds({signal.number: signal.rate for signal in signals}, np.inf)

    @staticmethod
    def _bounds(bounds: Mapping[int, float | None], absent: float) -> NDArray[np.float64]:
        array = np.full(NUMBERS, absent, dtype=np.float64)
        for number, bound in bounds.items():
            if bound is not None:
                array[number] = bound
        return array


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    signal: tuple[Signal, ...]


def read_catalogue(text: bytes) -> Catalogue:
    """The catalogue in the text of a signals.toml. Raises ConfigError where it is not one."""
    try:
        return Catalogue(_file(msgspec.toml.decode(text)).signal)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"signals.toml: {error}") from None


@functools.cache
def catalogue() -> Catalogue:
    """The catalogue that came with this package."""
    return read_catalogue(resources.files("fleetgate").joinpath("schemas/signals.toml").read_bytes())


_file = converter(_File)
