"""What gate and generator cost, and when the generator is called the bottleneck."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from loadtest.sampler import FILE, Sampler, cost, family
from loadtest.samples import Samples

ASLEEP = "import time; time.sleep(60)"
BUSY = "while True: pass"


@contextmanager
def python(program: str) -> Iterator[int]:
    """Its process id, once the interpreter has started and the program runs."""
    started = f"print(flush=True)\n{program}"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", started], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline()
            yield child.pid
        finally:
            child.kill()


def looks(directory: Path, *processes: Mapping[str, Mapping[str, float] | None]) -> Samples:
    """A run with one look a second."""
    lines = [
        {"at_s": 100.0 + n, "metrics": {"load": {"fleetgate_load_lag_seconds": n}, "edge": None}, "processes": each,
         "machine": {"there_s": 2.0 * n, "busy_s": 1.0 * n}}
        for n, each in enumerate(processes)
    ]  # fmt: skip
    (directory / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"at_s": 10')
    return Samples(directory, 100.0, 100.0 + len(processes) - 1)


def used(ran_s: float, waited_s: float = 0.0) -> dict[str, float]:
    return {"cpu_s": ran_s, "ran_s": ran_s, "waited_s": waited_s, "rss_mb": 10.0}


def test_a_process_that_is_always_busy_is_told_from_one_that_sleeps() -> None:
    """Whatever else runs on the machine: what it waits for a CPU counts as well."""
    with python(BUSY) as busy, python(ASLEEP) as asleep:
        begin_s, before = time.monotonic(), [cost(busy), cost(asleep)]
        time.sleep(0.5)
        after, passed_s = [cost(busy), cost(asleep)], time.monotonic() - begin_s
    wanted = [
        (now["ran_s"] + now["waited_s"] - then["ran_s"] - then["waited_s"]) / passed_s
        for then, now in zip(before, after, strict=True)
        if then is not None and now is not None
    ]
    assert wanted[0] > 0.5 > wanted[1]


def test_what_a_process_started_belongs_to_it_and_what_has_ended_costs_nothing() -> None:
    """The workers of locust are children of the process that is named."""
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {ASLEEP!r}])"
    with python(nested) as pid:
        deadline = time.monotonic() + 20
        while len(found := family(pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found[0] == pid
        assert len(found) == 2
    subprocess.run(["kill", str(found[1])], check=False)
    assert cost(pid) is None
    assert family(pid) == [pid]


def test_a_sampler_that_nobody_answers_writes_that(tmp_path: Path) -> None:
    """A gate that is down, and a process that is no more."""
    begin_s = time.time()
    with python(ASLEEP) as pid:
        pass
    with Sampler(tmp_path, {"edge": "127.0.0.1:1"}, {"edge": pid}):
        pass
    samples = Samples(tmp_path, begin_s, time.time())
    assert samples.complete
    assert samples.processes() == []
    assert samples.metric("edge", "fleetgate_connections").values == []


@pytest.mark.parametrize(
    ("ran_s", "waited_s", "share"),
    [(1.0, 0.0, 1.0), (0.5, 0.45, 1.0), (0.5, 0.1, 0.0)],
    ids=["busy", "starved", "fine"],
)
def test_the_bottleneck_is_who_had_something_to_do_all_the_time(
    tmp_path: Path, ran_s: float, waited_s: float, share: float
) -> None:
    """Also where others took its CPU. The gate's own processes are none, however busy."""
    samples = looks(
        tmp_path,
        *({"generator": used(0.0), "generator-7": used(n * ran_s, n * waited_s), "edge": used(n)} for n in range(5)),
    )
    assert samples.busiest(0.9)[1] == share
    if share:
        assert samples.busiest(0.9)[0] == "generator-7"


def test_series_are_of_the_run_and_rates_between_its_looks(tmp_path: Path) -> None:
    """A line that was cut off is left out, and a process that was not there has no rate."""
    samples = looks(tmp_path, {"edge": used(1.0)}, {"edge": used(1.5)}, {"edge": None})
    assert samples.cpu("edge").at_s == [1.0]
    assert samples.cpu("edge").values == [0.5]
    assert samples.ended() == ["edge"]
    assert samples.metric("load", "fleetgate_load_lag_seconds").values == [0, 1, 2]
    assert samples.machine().mean == 0.5
    assert samples.complete
    assert not Samples(tmp_path, 100.0, 160.0).complete
