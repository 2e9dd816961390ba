"""From how server and client ended to the status of a cell."""

import signal
from dataclasses import dataclass
from pathlib import Path

from client.sweeping import log
from client.sweeping.cell import Status
from client.sweeping.record import RunRecord

# Exit status of `python -m server` for a setting it will not serve.
_SERVER_REFUSED = 2
# Exit statuses of `python -m client.benchmark`.
_CLIENT_OK, _CLIENT_SOME_FAILED, _CLIENT_INVALID = 0, 1, 3
# As a process that was killed reports itself, and as a shell reports it.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@dataclass(frozen=True)
class Verdict:
    """The status of a cell, and why in one line; "" when all is well."""

    status: Status
    reason: str


def not_ready(server: int | None, server_log: Path, seconds: float) -> Verdict:
    """Of a server that ended with a status before it was ready, or (None) was not in time."""
    if server == _SERVER_REFUSED:
        return Verdict(Status.REFUSED, log.last_error(server_log))
    if server is None:
        lacking = log.out_of_memory(server_log)
        if lacking is not None:
            return Verdict(Status.OOM, lacking)
        said = log.last_line(server_log) or "nothing"
        return Verdict(
            Status.FAILED, f"the server was not ready within {seconds:g} s; its log ends: {said}"
        )
    return _ended(server, server_log)


def after_benchmark(
    client: int | None,
    server: int | None,
    server_log: Path,
    client_log: Path,
    record: RunRecord | None,
    seconds: float,
) -> Verdict:
    """Of a cell whose server was ready. Exit statuses; None for a process that still runs."""
    if client == _CLIENT_OK and record is not None:
        return Verdict(Status.OK, "")
    if client == _CLIENT_INVALID:
        said = log.last_with(client_log, "INVALID") or log.last_line(client_log)
        return Verdict(Status.INVALID, said)
    if server is not None:
        return _ended(server, server_log)
    lacking = log.out_of_memory(server_log)
    if lacking is not None:
        return Verdict(Status.OOM, lacking)
    return Verdict(Status.FAILED, _client_failure(client, client_log, record, seconds))


def _ended(server: int, server_log: Path) -> Verdict:
    if server in _KILLED:
        return Verdict(
            Status.OOM, "the server was killed by signal 9, as is done when memory is short"
        )
    lacking = log.out_of_memory(server_log)
    if lacking is not None:
        return Verdict(Status.OOM, lacking)
    how = f"was ended by signal {-server}" if server < 0 else f"ended with status {server}"
    said = log.last_error(server_log) or "it said nothing"
    return Verdict(Status.FAILED, f"the server {how}: {said}")


def _client_failure(
    client: int | None, client_log: Path, record: RunRecord | None, seconds: float
) -> str:
    if client is None:
        return f"the benchmark did not end within {seconds:g} s: {log.last_line(client_log)}"
    if client == _CLIENT_OK:
        return "the benchmark left no record"
    if client == _CLIENT_SOME_FAILED and record is not None and record.failures:
        causes = ", ".join(f"{count} {cause}" for cause, count in record.failures.items())
        asked = record.figures.get("num_prompts", 0)
        return f"{sum(record.failures.values())} of {asked:g} requests failed: {causes}"
    return f"the benchmark ended with status {client}: {log.last_error(client_log)}"
