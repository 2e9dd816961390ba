"""All requests at once: how long the run takes, and what each request sees."""

from dataclasses import dataclass

import numpy as np

from capacity.serving.lengths import Lengths
from capacity.serving.schedule import Schedule, schedule
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work, prefill_work
from capacity.work.part import Work
from capacity.work.reading import positions_read
from capacity.work.setting import Setting


@dataclass(frozen=True)
class BatchRun:
    """Work of a run, before any efficiency is known: made once, timed often."""

    setting: Setting
    lengths: Lengths
    plan: Schedule
    decode: Work
    prefill: Work


@dataclass(frozen=True)
class BatchTimes:
    """Seconds. ttft, tpot: of each request; TTFT holds its wait for a slot, TPOT what other
    prompts take between its tokens (no value for an answer of one token).
    """

    duration: float
    output_tokens: int
    ttft: np.ndarray
    tpot: np.ndarray

    @property
    def throughput(self) -> float:
        """Output tokens a second."""
        return self.output_tokens / self.duration


def batch_run(setting: Setting, lengths: Lengths) -> BatchRun:
    """The run of these requests, in their order, all waiting from the start."""
    plan = schedule(lengths, setting.slots, setting.kept_positions)
    return BatchRun(
        setting,
        lengths,
        plan,
        decode_work(setting, plan.active, positions_read(setting, plan.live, plan.longest)),
        prefill_work(setting, lengths.inputs),
    )


def time_batch(run: BatchRun, efficiency: Efficiency) -> BatchTimes:
    """Prompts are read one by one, in order, before the decode step that their requests join."""
    plan, where = run.plan, run.setting.slice
    steps = np.broadcast_to(step_time(run.decode, where, efficiency).total, plan.steps)
    decoded = np.concatenate([[0.0], np.cumsum(steps)])
    read = np.cumsum(prefill_seconds(run.prefill, run.setting, efficiency))
    first = decoded[plan.admitted] + read
    # A slot is free before step `left`: its last token came with the step before, at which time
    # the prompts that joined by then had been read (they are taken in in order).
    joined = np.searchsorted(plan.admitted, plan.left - 1, side="right") - 1
    gaps = plan.left - plan.admitted
    ends = np.where(gaps > 0, decoded[plan.left] + read[joined], first)
    with np.errstate(invalid="ignore"):
        tpot = np.where(gaps > 0, (ends - first) / np.maximum(gaps, 1), np.nan)
    return BatchTimes(
        duration=float(ends.max()),
        output_tokens=int(run.lengths.outputs.sum()),
        ttft=first,
        tpot=tpot,
    )


def batch_throughput(run: BatchRun, efficiency: Efficiency) -> float:
    """Output tokens a second, as `time_batch` has it: the last token comes with the last step."""
    steps = step_time(run.decode, run.setting.slice, efficiency).total
    decoding = float(np.broadcast_to(steps, run.plan.steps).sum())
    reading = float(prefill_seconds(run.prefill, run.setting, efficiency).sum())
    return float(run.lengths.outputs.sum()) / (decoding + reading)


def prefill_seconds(work: Work, setting: Setting, efficiency: Efficiency) -> np.ndarray:
    """Of each prompt by itself, with what the host does for a request."""
    seconds = step_time(work, setting.slice, efficiency).total
    return np.asarray(seconds) + efficiency.request_s * efficiency.effect
