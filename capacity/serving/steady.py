"""Requests that come at a rate: what each of them sees once the server has warmed up.

With m decode steps a request (answer - 1), p seconds to read a prompt, s(n) seconds for a step of n
sequences and B slots:

    most requests a second   X = 1 / (p + m s(B) / B)
    sequences at rate r      n = r m TPOT                     (Little's law)
    TPOT                     s(n) / (1 - r p)                 (prompts take a share r p)
    wait for the device      s(n) / 2 + r E[p^2] / (2 (1 - r p))    (M/G/1, Pollaczek-Khinchine)
    wait for a slot          C(B, n) m TPOT / (B - n)         (Erlang C)
    TTFT                     both waits + p

Arrivals are Poisson and steps follow one another without gaps. These are means; percentiles want a
simulation.
"""

from dataclasses import dataclass

import numpy as np

from capacity.serving.batch_run import prefill_seconds
from capacity.serving.lengths import Lengths
from capacity.serving.positions import mean_read
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import StepTime, step_time
from capacity.work.decode import decode_work, prefill_work
from capacity.work.setting import Setting
from client.errors import UsageError

_ROUNDS = 60  # of a bisection: to the last bit


@dataclass(frozen=True)
class Steady:
    """Means, in seconds and per second. active: sequences at a time. step, prefill: how their time
    is made up."""

    rate: float
    active: float
    ttft: float
    tpot: float
    tokens_per_s: float
    step: StepTime
    prefill: float


@dataclass(frozen=True)
class Server:
    """A setting with the lengths it is asked for and what its chips reach."""

    setting: Setting
    lengths: Lengths
    efficiency: Efficiency

    @property
    def decode_steps(self) -> float:
        """Of a request, on average: a token each after the first."""
        return float(self.lengths.outputs.mean()) - 1

    def step(self, active: float) -> StepTime:
        """A decode step of so many sequences."""
        work = decode_work(self.setting, active, mean_read(self.setting, self.lengths, active))
        return step_time(work, self.setting.slice, self.efficiency)

    def prompts(self) -> np.ndarray:
        """Seconds to read each of the prompts."""
        work = prefill_work(self.setting, self.lengths.inputs)
        return prefill_seconds(work, self.setting, self.efficiency)

    @property
    def most_requests(self) -> float:
        """Requests a second that all slots together can take."""
        slots = self.setting.slots
        full = float(self.step(slots).total)
        return 1 / (float(self.prompts().mean()) + self.decode_steps * full / slots)

    def at_rate(self, rate: float) -> Steady:
        """At this many requests a second. UsageError when that is `most_requests` or more."""
        if not 0 < rate < self.most_requests:
            raise UsageError(
                f"--rate {rate:g}: above 0 and below {self.most_requests:.3g} requests/s, the most "
                f"that {self.setting.slots} slots on {self.setting.slice.name} can take; more "
                "slots or chips take more"
            )
        prompts = self.prompts()
        reading = float(prompts.mean())
        left = 1 - rate * reading

        def sequences(active: float) -> float:
            return rate * self.decode_steps * float(self.step(active).total) / left

        # `sequences` grows slower than its argument below the most requests: bisect for where it
        # crosses.
        low, high = 0.0, float(self.setting.slots)
        for _ in range(_ROUNDS):
            middle = (low + high) / 2
            low, high = (middle, high) if sequences(middle) > middle else (low, middle)
        active = (low + high) / 2
        step = self.step(active)
        tpot = float(step.total) / left
        device = float(step.total) / 2 + rate * float((prompts**2).mean()) / (2 * left)
        busy = erlang_c(self.setting.slots, active)
        slot = busy * self.decode_steps * tpot / max(self.setting.slots - active, 1e-9)
        return Steady(
            rate=rate,
            active=active,
            ttft=device + slot + reading,
            tpot=tpot,
            tokens_per_s=rate * (self.decode_steps + 1),
            step=step,
            prefill=reading,
        )


def erlang_c(servers: int, load: float) -> float:
    """The probability that all servers are busy, `load` of them being so on average."""
    if load >= servers:
        return 1.0
    if load <= 0:
        return 0.0
    # Erlang B by its recursion, which does not overflow.
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))
