"""Runs the processes of one machine as children and starts them again when they end.

Crash-only: a child that was killed is started with the same arguments, on the same ports; nothing else is done for
it. Children end when this process does, however it ends (`leash`); Ctrl-C in its terminal does not reach them, so that
they end in the order of `Machine.stop`. Decides only when to start and when to give up
waiting; what a child does, it reads from the configuration.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from fleetgate import log
from fleetgate.errors import ConfigError, Conflict, FleetgateError, SpoolError

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
HEALTHY_SECONDS = 10.0  # a child that lived this long starts again after the first pause
STOP_SECONDS = 20.0
GIVE_UP_AFTER = 3  # times in a row that a child ends at its start for what no further try would mend

NEVER_MENDED: tuple[type[FleetgateError], ...] = (ConfigError,)
"""A port in use, a file that is absent."""

TAKEN: tuple[type[FleetgateError], ...] = (Conflict, SpoolError)
"""The spool or the signer's log is another process's (a second `up`), or no good. Of a child that was healthy before it
is a disk that fails, and may be mended: it is tried for ever."""

_log = log.get("supervise")


class Child:
    """One process: `process` is the running one, None between two lives; its standard input is the leash."""

    def __init__(self, name: str, arguments: Sequence[str], output: int | None) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._output = output
        self._stopping = False
        self.process: trio.Process | None = None

    async def run(self) -> None:
        """Keeps the child running until `stop`, with a growing pause while it keeps failing.

        Raises the error that it cannot start for, with the exit code of the child's own, when no number of tries would
        mend that.
        """
        pause_s, refused, hopeless = FIRST_PAUSE_SECONDS, 0, NEVER_MENDED + TAKEN
        while not self._stopping:
            started_s = trio.current_time()
            self.process = await trio.lowlevel.open_process(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,  # a terminal's signals are for us alone
            )
            _log.info("child_started", child=self.name, pid=self.process.pid)
            try:
                status = await self.process.wait()
            finally:
                if self.process.returncode is None:
                    self.process.kill()
            self.process = None
            if self._stopping:
                return
            lived_s = trio.current_time() - started_s
            if lived_s >= HEALTHY_SECONDS:
                hopeless = NEVER_MENDED
            why = next((error for error in hopeless if error.exit_code == status), None)
            refused = refused + 1 if why is not None and lived_s < HEALTHY_SECONDS else 0
            if why is not None and refused == GIVE_UP_AFTER:
                raise why(f"{self.name} cannot start: what it says stands above")
            _log.warning("child_ended", child=self.name, status=status, lived_seconds=round(lived_s, 1))
            pause_s = FIRST_PAUSE_SECONDS if lived_s > HEALTHY_SECONDS else min(pause_s * 2, LONGEST_PAUSE_SECONDS)
            await trio.sleep(pause_s)

    async def stop(self) -> None:
        """Asks it to drain; kills it when it does not within 20 s."""
        self._stopping = True
        process = self.process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS) as scope:
            await process.wait()
        if scope.cancelled_caught:
            process.kill()

    def kill(self) -> None:
        """As a crash would."""
        if self.process is not None:
            self.process.kill()


class Machine:
    """Signer, edge and load of one configuration. `output` is a descriptor for what they print; None: our own."""

    def __init__(self, config_file: Path, output: int | None = None) -> None:
        command = [sys.executable, "-m", "fleetgate.leash", "--config", str(config_file)]
        self.signer = Child("signer", [*command, "signer"], output)
        self.edge = Child("edge", [*command, "edge"], output)
        self.load = Child("load", [*command, "load"], output)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_signer)
            nursery.start_soon(self.load.run)
            nursery.start_soon(self.edge.run)

    async def _run_signer(self) -> None:
        """Without a signer the gate goes on: what it loads meanwhile is signed when there is one again."""
        try:
            await self.signer.run()
        except FleetgateError as error:
            _log.error("no_signer", error=str(error), means="heads of segments are not signed")

    async def stop(self) -> None:
        """The edge first: what it sealed while draining, load still takes, and the signer signs the last head."""
        await self.edge.stop()
        await self.load.stop()
        await self.signer.stop()
