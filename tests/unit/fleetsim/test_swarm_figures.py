"""What a swarm sends and remembers: shapes, numbers and tags, latencies and counts."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.unit.fleetsim.bench import BUNDLE

from fleetsim import encode, mac
from fleetsim.gate import RunError
from fleetsim.swarm_tally import Histogram
from fleetsim.swarm_work import Shape, Work, bodies, read_bodies, repeated

NOW_MS = 1_767_225_600_000


def work(shape: Shape, epoch: int = 1) -> Work:
    return Work(BUNDLE, shape.enc, repeated(bodies(shape, random.Random(1))), epoch, lambda: float(NOW_MS))


@pytest.mark.parametrize("percent", [50, 99])
def test_a_percentile_is_right_to_one_percent(percent: int) -> None:
    """The histogram agrees with the sorted latencies within its bucket's width."""
    seconds = np.random.default_rng(1).lognormal(-5, 1, 20_000)
    histogram = Histogram()
    for value in seconds.tolist():
        histogram.add(value)
    assert histogram.percentile_ms(percent) == pytest.approx(np.percentile(seconds, percent) * 1000, rel=0.02)


def test_merged_histograms_count_both() -> None:
    """Intervals add up to the whole."""
    low, high = Histogram(), Histogram()
    for histogram, value in ((low, 0.001), (high, 0.1)):
        for _ in range(100):
            histogram.add(value)
    low.merge(high)
    assert low.percentile_ms(50) == pytest.approx(1, rel=0.02)
    assert low.percentile_ms(51) == pytest.approx(100, rel=0.02)


def test_a_histogram_of_nothing_reports_nothing() -> None:
    """No figure is made up where nothing was measured."""
    assert Histogram().report() == {}


@pytest.mark.parametrize(
    "shape", [Shape(1, 8), Shape(60, 8, "path"), Shape(600, 8, form="columns"), Shape(300, 40, form="columns")]
)
def test_a_body_has_the_shape_asked_for(shape: Shape) -> None:
    """Events, signals and their kind of name are those of the shape."""
    body = encode.decode_body(shape.enc, bodies(shape, random.Random(1))[0])
    kind = str if shape.names == "path" else int
    assert len(body.events) == shape.events
    assert all(len(e.signals) == shape.signals and all(type(n) is kind for n in e.signals) for e in body.events)


def test_a_body_that_is_too_large_is_refused() -> None:
    """A shape beyond 64 KiB is an error of the person who asked for it."""
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        bodies(Shape(1_000, 40), random.Random(1))


@pytest.mark.parametrize("content", [b"", b"\x90", b"\x93\x01\x02\x03"])
def test_a_file_without_bodies_is_refused(content: bytes, tmp_path: Path) -> None:
    """Empty, an empty array, an array of numbers: the person is told which file."""
    file = tmp_path / "bodies"
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"--bodies: .*bodies"):
        read_bodies(file)


def test_every_envelope_has_its_own_number_and_a_good_tag() -> None:
    """Numbers go up by one from 0, and each tag verifies under the device's key."""
    signer = work(Shape())
    envelopes = [encode.decode_envelope(raw) for raw in signer.sign(5) + signer.sign(5)]
    assert [e.seq for e in envelopes] == list(range(10))
    for e in envelopes:
        header = mac.header(v=e.v, enc=e.enc, kid=e.kid, epoch=e.epoch, seq=e.seq, sent_at=e.sent_at)
        assert e.tag == mac.tag(BUNDLE.mac_key, header, e.body)


def test_a_new_connection_begins_an_epoch_above_the_gates_and_its_own() -> None:
    """Whatever the gate says, (epoch, seq) only go up."""
    signer = work(Shape())
    signed = []
    for gate_epoch in (0, 7, 2, 2):
        signer.above(gate_epoch)
        signed += [(e.epoch, e.seq) for e in map(encode.decode_envelope, signer.sign(2))]
        assert signer.epoch > gate_epoch
    assert all(first < second for first, second in pairwise(signed))
