"""`make bench` against real processes, at sizes that only show that it measures: the JSON has its names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from loadtest.bench import edge_cases, flood_case, load_case, targets, tenants_case
from loadtest.bench.context import QUICK, Context
from loadtest.bench.edge_cases import Case
from loadtest.bench.processes import BenchError, until
from loadtest.bench.sketch_case import Absent
from loadtest.bench.stored import check_clickhouse

from fleetsim.swarm_work import Work

ROOT = Path(__file__).resolve().parents[3]
SIZES = QUICK._replace(rounds=1, seconds=0.3)
OF_AN_EDGE = {
    *("edge_cpu_us_per_event", "events_per_s", "readings_per_s", "ack_ms_p50", "ack_ms_p99", "rss_mb"),
    *("events_per_s_per_core", "generator_cpu_us_per_message", "edge_cores"),
}
LATE = {"late_messages"}  # only on a machine that takes more than was prepared


def test_the_command_writes_one_object_per_case(tmp_path: Path) -> None:
    """Exit status 0, and the figures of `judge` by name."""
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", "loadtest.bench.run", "--quick", "--only", "judge", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert set(figures) == {"judge"}
    assert set(figures["judge"]) == {"accepted_us", "floor_us", "ratio_to_floor", "forged_us", "garbage_us"}
    assert all(value > 0 for value in figures["judge"].values())


def children(pid: int) -> dict[int, str]:
    """Command lines of its children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in found}


def test_sigterm_ends_everything_that_was_started(tmp_path: Path) -> None:
    """Edge and swarm end with it, or at once behind it; nothing is left on the disk; status 130, as by ctrl-C."""
    command = [sys.executable, "-m", "loadtest.bench.run", "--only", "http", "--json", str(tmp_path / "out.json")]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(temporary)}) as bench:
        until(lambda: "swarm" in str(children(bench.pid)), "edge and swarm run", 60)
        started = children(bench.pid)
        bench.send_signal(signal.SIGTERM)
        assert (len(started), bench.wait(60)) == (2, 130)
    # One whose start the signal interrupted has no block yet that ends it: the kernel does, a moment after its parent.
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "both have ended", 20)
    assert list(temporary.iterdir()) == []
    assert json.loads((tmp_path / "out.json").read_text()) == {}


def test_an_edge_whose_spool_lacks_what_it_acknowledged_fails_its_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round in which the answers are counted too high by one: the spool is counted, not believed."""
    monkeypatch.setattr(edge_cases, "check", lambda seen: seen["answers_in_all"].update(accepted=1 << 40))
    with pytest.raises(BenchError, match=f"{1 << 40} messages were acknowledged; in the spool are"):
        edge_cases.run(Context(tmp_path, SIZES), Case(4, 2, 2_000))


@pytest.mark.parametrize("doubled", [False, True], ids=["each once", "one twice"])
def test_what_clickhouse_has_is_compared_by_identity(
    doubled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many rows as were acknowledged are not enough: one message twice and another never has the same count."""
    sign = Work.sign

    def sign_twice(work: Work, count: int) -> list[bytes]:
        first, *others = sign(work, count)
        return [first, first, *others[1:]]

    if doubled:
        monkeypatch.setattr(Work, "sign", sign_twice)
    with Context(tmp_path, SIZES).gate(load_case.DEVICES) as gate:
        messages, _ = load_case._fill(gate, load_case.LOAD, 1)
        load = gate.start_load()
        until(gate.all_loaded, "all is loaded", 60, load)
        load_case._wait_for_merges(gate, load)
        with pytest.raises(BenchError, match="of them different") if doubled else nullcontext():
            check_clickhouse(gate.clickhouse(), messages, messages * load_case.LOAD.events)
        with pytest.raises(BenchError, match=f"{messages + 1} messages with"):
            check_clickhouse(gate.clickhouse(), messages + 1, messages * load_case.LOAD.events)


@pytest.mark.parametrize("case", [Case(4, 2, 2_000), Case(2, 1, 8_000, ("--batch", "10"))], ids=["mqtt", "https"])
def test_a_case_over_sockets_gives_its_figures(case: Case, tmp_path: Path) -> None:
    """An edge and a swarm as in a real run: every message accepted, every figure there and above zero."""
    [figures] = edge_cases.run(Context(tmp_path, SIZES), case)
    assert set(figures) - LATE == OF_AN_EDGE
    assert min(figures.values()) > 0


def test_the_edge_is_compared_with_the_sketch_under_the_same_load(tmp_path: Path) -> None:
    """The same swarm loads both in one round, and the sketch accepts what it sends."""
    try:
        [theirs], [ours] = edge_cases.run_both(Context(tmp_path, SIZES), Case(4, 2, 2_000))
    except Absent as absent:
        pytest.skip(str(absent))
    assert set(theirs) - LATE == OF_AN_EDGE
    assert ours["ratio_to_sketch"] == ours["edge_cpu_us_per_event"] / theirs["edge_cpu_us_per_event"]


def test_the_flood_is_measured_in_rounds_and_alone_before_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the median of `cpu_ratio` compares spells that lie beside each other; all that is promised is among them."""
    monkeypatch.setattr(flood_case, "HONEST", 4)
    monkeypatch.setattr(flood_case, "FLOODING", 4)
    monkeypatch.setattr(flood_case, "WARM_UP_SECONDS", 0.3)
    context = Context(tmp_path, SIZES._replace(rounds=2, seconds=1))
    context.rounds["chatty"] = [{"events_per_s": 400.0}]
    found = flood_case.run(context)
    assert len(found) == 2
    for figures in found:
        assert {target.figure for target in targets.TARGETS["flood"]} <= set(figures)
        assert figures["refused_per_s"] > 0


def test_what_a_limit_is_worth_is_a_figure_of_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each target of the case has its figure: the second gate is built for one."""
    monkeypatch.setattr(tenants_case, "QUIET", 2)
    monkeypatch.setattr(tenants_case, "NOISY", 4)
    figures = tenants_case.run(Context(tmp_path, SIZES))
    assert {target.figure for target in targets.TARGETS["tenants"]} <= set(figures)
    assert figures["ratio_limited_to_beside"] == figures["ack_ms_p99_limited"] / figures["ack_ms_p99_beside"]
