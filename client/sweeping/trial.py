"""One cell: a server is started, benchmarked and stopped."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from client.sweeping import verdict
from client.sweeping.cell import Cell, Status
from client.sweeping.options import SweepOptions
from client.sweeping.peaks import Peaks
from client.sweeping.processes import Processes, ProcessGroup
from client.sweeping.progress import Progress
from client.sweeping.ready import Ready, free_port, wait_until_ready
from client.sweeping.record import RunRecord, read_record
from client.sweeping.roofline import applies, bound, footprint, live_positions
from client.sweeping.setting import Setting
from client.sweeping.verdict import Verdict

CLIENT = (sys.executable, "-m", "client.benchmark")
SERVER_LOG, CLIENT_LOG = "server.log", "client.log"
_CLIENT_STOP_SECONDS = 10.0
# For the client to end by itself when the server is no more.
_ALONE_SECONDS = 10.0


@dataclass(frozen=True)
class Trials:
    """Tries settings, each in a folder of its own within `folder`."""

    options: SweepOptions
    peaks: Peaks
    folder: Path
    processes: Processes
    client: tuple[str, ...] = CLIENT

    def run(self, setting: Setting, progress: Progress) -> Cell:
        """Tries one, and leaves no process behind. Raises `Interrupted`; the cell is then to be
        tried again from its start."""
        self.processes.check()
        started, date = time.monotonic(), datetime.now()
        cell_folder = self.folder / setting.name
        if cell_folder.exists():
            shutil.rmtree(cell_folder)
        cell_folder.mkdir()
        port, ready_file = free_port(), cell_folder.absolute() / "ready.json"
        command = self.options.command.fill(setting, port, ready_file)
        found = self._serve(command, port, ready_file, cell_folder, progress)
        return Cell(
            setting=setting,
            status=found.verdict.status,
            reason=found.verdict.reason,
            date=date.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            server_command=command,
            plan=found.plan,
            **self._measured(setting, found),
        )

    def _serve(
        self, command: tuple[str, ...], port: int, ready_file: Path, folder: Path, shown: Progress
    ) -> "_Found":
        log, limit = folder / SERVER_LOG, self.options.ready_seconds
        awaited = ready_file if self.options.command.writes_ready_file else None
        try:
            server = self.processes.start(command, log)
        except OSError as error:
            return _Found(Verdict(Status.FAILED, f"the server cannot be started: {error}"))
        try:
            ready = wait_until_ready(
                server, port, awaited, limit, lambda: shown.tick("the server starts", log)
            )
            if ready is None:
                return _Found(verdict.not_ready(server.status, log, limit))
            return self._benchmark(server, ready, folder, shown)
        finally:
            server.stop(self.options.stop_seconds)

    def _benchmark(
        self, server: ProcessGroup, ready: Ready, folder: Path, shown: Progress
    ) -> "_Found":
        log, limit = folder / CLIENT_LOG, self.options.benchmark_seconds
        arguments = self.options.client_arguments(ready.port, folder)
        client = self.processes.start([*self.client, *arguments], log)
        try:
            client.wait(_long_gone(server), limit, lambda: shown.tick("the benchmark runs", log))
            self.processes.check()
            status = client.status
        finally:
            client.stop(_CLIENT_STOP_SECONDS)
        try:
            record = read_record(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"the record cannot be read: {error!r}"
            return _Found(Verdict(Status.FAILED, reason), None, ready.plan)
        judged = verdict.after_benchmark(
            status, server.status, folder / SERVER_LOG, log, record, limit
        )
        return _Found(judged, record, ready.plan)

    def _measured(self, setting: Setting, found: "_Found") -> dict[str, Any]:
        record = found.record
        if record is None:
            return {}
        prompt, answer = record.longest_prompt, record.most_asked
        rolling = None
        if prompt is not None and answer is not None:
            rolling = setting.cache_length < prompt + answer
        values = {
            "record": str(record.path.relative_to(self.folder)),
            "figures": record.figures,
            "max_input_length": prompt,
            "max_output_length": answer,
            "rolling": rolling,
        }
        return values | self._roofline(setting, found)

    def _roofline(self, setting: Setting, found: "_Found") -> dict[str, float | None]:
        size, record = footprint(found.plan), found.record
        if record is None or size is None or not applies(self.peaks, found.plan):
            return {}
        positions = live_positions(record.lengths, setting.cache_length)
        reached = record.figures.get("output_throughput")
        if positions is None or reached is None or not found.verdict.status.measured:
            return {}
        most = bound(size, self.peaks, setting.batch_size, positions)
        return {"roofline_tokens_per_s": most, "roofline_fraction": reached / most}


def _long_gone(server: ProcessGroup) -> Callable[[], bool]:
    """Whether it was seen to have ended a while ago."""
    seen: list[float] = []

    def gone() -> bool:
        if server.status is not None:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > _ALONE_SECONDS

    return gone


@dataclass(frozen=True)
class _Found:
    verdict: Verdict
    record: RunRecord | None = None
    plan: dict[str, Any] | None = None
