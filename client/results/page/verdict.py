"""Whether a run may be believed, as its record says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.results.page.sources import RunSource
from client.results.page.values import as_list, as_mapping, finite, text

VALID, INVALID, NOT_JUDGED = "VALID", "INVALID", "not judged"


@dataclass(frozen=True)
class Verdict:
    """The banner of a run: `state`, the record's reasons, and what else a reader must know."""

    label: str
    state: str
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The name of its style."""
        return {VALID: "valid", INVALID: "invalid"}.get(self.state, "open")


def judge(run: RunSource) -> Verdict:
    """What the record says, and whether the run was cut short, had failures or lacks its rows."""
    record = run.record
    return Verdict(run.label, state_of(record), _reasons(record), _remarks(run))


def state_of(record: Mapping[str, Any]) -> str:
    """VALID, INVALID, or not judged where a record has no verdict, in one word or an object."""
    given = record.get("verdict")
    inner = as_mapping(given)
    said = text(inner.get("verdict", inner.get("state")) if inner else given).strip().upper()
    return said if said in (VALID, INVALID) else NOT_JUDGED


def _reasons(record: Mapping[str, Any]) -> tuple[str, ...]:
    inner = as_mapping(record.get("verdict"))
    given = inner.get("reasons", record.get("verdict_reasons", record.get("reasons")))
    return tuple(text(reason) for reason in (as_list(given) or ([given] if given else [])))


def _remarks(run: RunSource) -> tuple[str, ...]:
    record, remarks = run.record, []
    if record.get("interrupted") is True:
        remarks.append("the run was interrupted: figures are of what had completed by then")
    if finite(record.get("completed")) == 0:
        remarks.append("no request completed: there is no latency and no throughput")
    failed, asked = finite(record.get("failed")), finite(record.get("num_prompts"))
    if failed and asked:
        remarks.append(
            f"{failed:,.0f} of {asked:,.0f} requests failed: latencies are of the others only"
        )
    remarks += [run.problem] if run.problem else []
    return tuple(remarks + [text(note) for note in as_list(record.get("notes"))])
