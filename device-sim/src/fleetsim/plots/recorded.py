"""Decides how a recorded drive is read for comparison: speeds and accelerations by the second, and HDOP.

The drive stays where it is. What the pictures show of it is its distributions, not its course.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fleetsim.drive.kinds import Array
from fleetsim.gate import RunError


class Recorded(NamedTuple):
    """One value a second: km/h, m/s^2; HDOP for each row."""

    speed: Array
    acceleration: Array
    hdop: Array


def read(path: Path) -> Recorded:
    """A CSV file with `epoch` (Unix seconds), `speed` (m/s) and `hdop`. Raises RunError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(float(row["epoch"]), float(row["speed"]), float(row["hdop"])) for row in csv.DictReader(file)]
    except OSError as error:
        raise RunError(f"--recording: {path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise RunError(f"--recording: {path} is no CSV file with numbers in columns epoch, speed, hdop") from None
    if len(rows) < 2:
        raise RunError(f"--recording: {path} has fewer than two rows")
    epoch, speed, hdop = np.array(rows).T
    # Accelerations of a tenth of a second are mostly the receiver's noise: the mean of each second is compared.
    seconds = np.floor(epoch - epoch[0]).astype(np.intp)
    counts = np.maximum(1, np.bincount(seconds))
    by_second = np.bincount(seconds, weights=speed) / counts
    return Recorded(by_second * 3.6, np.diff(by_second), hdop)
