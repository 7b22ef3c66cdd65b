"""Case tenants: what a tenant feels of another one that sends as fast as it can.

Fifty vehicles of a quiet tenant send a message a second each; a thousand of a noisy one wait for an answer and send
the next. `ack_ms_p99` of the quiet ones, in one run: `alone`; `beside` the noisy tenant; `limited`, beside it while a
limit of the tenant (`LIMIT`) keeps it at a part of what the gate can do; and `among` the noisy ones, as vehicles of
that tenant: what each would feel if tenants did not take turns. All of them but the first share two cores with a
generator that is as busy as the gate, so it is the ratios that say something: beside to among is what turns are worth,
limited to beside what a limit is worth beyond them.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from loadtest.bench.context import Context, Figures
from loadtest.bench.edge_cases import check
from loadtest.bench.herd_case import choose
from loadtest.bench.processes import BenchError, Phases, Served, Swarm
from loadtest.bench.sustained_case import prepared

QUIET, NOISY = 50, 1_000
LIMIT = "2000/s"
CONNECT_SECONDS = 60.0
NOISE_SECONDS = 600.0  # until the case ends it
NOISE_PREPARED = 400  # messages of each, signed before: signing costs the gate's cores


def run(context: Context) -> Figures:
    installation = context.installation(QUIET + NOISY)
    quiet = installation.enrol_tenant("quiet", QUIET)
    everybody = sorted(installation.devices.iterdir())
    figures: Figures = {}
    with context.gate(QUIET + NOISY) as gate:
        noisy = choose(gate.directory / "noisy", everybody[:NOISY])
        among = choose(gate.directory / "among", everybody[NOISY : NOISY + QUIET])
        edge = gate.serve()
        figures["ack_ms_p99_alone"] = _felt(context, edge, quiet, None)
        figures["ack_ms_p99_beside"] = _felt(context, edge, quiet, noisy)
        figures["ack_ms_p99_among"] = _felt(context, edge, among, noisy)
    with context.gate(QUIET + NOISY) as gate:
        noisy = choose(gate.directory / "noisy", everybody[:NOISY])
        with gate.file.open("a") as file:
            file.write(f'[limits.tenant]\nmessages = "{LIMIT}"\n')
        figures["ack_ms_p99_limited"] = _felt(context, gate.serve(), quiet, noisy)
    return figures | {
        "ratio_beside_to_among": figures["ack_ms_p99_beside"] / figures["ack_ms_p99_among"],
        "ratio_limited_to_beside": figures["ack_ms_p99_limited"] / figures["ack_ms_p99_beside"],
    }


def _felt(context: Context, edge: Served, devices: Path, noisy: Path | None) -> float:
    """p99 of the acknowledgements of these devices, in ms, beside the noisy ones if there are any."""
    with ExitStack() as ending:
        noise = None
        if noisy is not None:
            phases = Phases()
            load = ("--connections", str(NOISY), "--seconds", str(NOISE_SECONDS), "--prepare", str(NOISE_PREPARED))
            noise = ending.enter_context(Swarm(noisy, (*edge.options, *load), NOISE_SECONDS, phases.tell))
            phases.wait_for("measuring", CONNECT_SECONDS)
        seconds = context.sizes.seconds
        steady = (
            *("--connections", str(QUIET), "--rate", str(QUIET), "--seconds", str(seconds), "--warm-up", "1"),
            *("--prepare", str(prepared(QUIET, seconds + 1, QUIET))),
        )
        swarm = ending.enter_context(Swarm(devices, (*edge.options, *steady), seconds, lambda phase: None))
        seen = swarm.report()
        check(seen)
        acknowledged = seen["answers_in_all"]["accepted"]
        if noise is not None:
            noise.finish_early()
            made = noise.report()
            if sum(made["ended"].values()) > made["connect"]["failed"]:  # a machine too busy for handshakes is no fault
                raise BenchError(f"the edge ended connections of the noisy tenant: {made['ended']}")
            acknowledged += made["answers_in_all"]["accepted"]
        edge.check(acknowledged)
        found: float = seen["ack_ms"]["p99"]
        return found
