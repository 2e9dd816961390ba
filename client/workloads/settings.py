"""Everything that decides what is asked."""

from dataclasses import dataclass, field
from pathlib import Path

from client.errors import UsageError
from client.workloads.entry import EntryRules
from client.workloads.hub import HubSettings
from client.workloads.lengths import LengthSettings
from client.workloads.limits import Limits
from client.workloads.multi_turn import MultiTurn
from client.workloads.sharegpt import ShareGPTRules
from client.workloads.synthetic import SharedPrefixes
from client.workloads.trace import TraceSettings

KINDS = ("sharegpt", "sharegpt-hub", "synthetic", "prefix", "trace", "jsonl", "hf")
_READ_A_PATH = ("sharegpt", "trace", "jsonl")


@dataclass(frozen=True)
class WorkloadSettings:
    """What kind of workload, and what it needs. Lengths in tokens.

    `path` is the file of sharegpt (None: the sample that comes with us), trace and jsonl; `hub`
    the data set of hf. `output_length` above 0 is asked of every request. With `repeat` prompts
    are used again where there are too few. `multi_turn` None asks first turns only; `prefixes` is
    for the kind prefix.
    """

    kind: str = "sharegpt"
    path: Path | None = None
    repeat: bool = True
    starter: str = "human"
    chat_template: bool = False
    limits: Limits = field(default_factory=Limits)
    output_length: int = 0
    multi_turn: MultiTurn | None = None
    lengths: LengthSettings = field(default_factory=LengthSettings)
    prefixes: SharedPrefixes | None = None
    trace: TraceSettings = field(default_factory=TraceSettings)
    hub: HubSettings | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"--dataset: {', '.join(KINDS)}; got {self.kind!r}")
        if self.output_length < 0:
            raise UsageError(
                f"max_output_length: 0 (the data set's) or more; got {self.output_length}"
            )
        if self.path is not None and self.kind not in _READ_A_PATH:
            raise UsageError(f"--dataset {self.kind} reads no file; leave out --dataset-path")
        if self.path is None and self.kind in ("trace", "jsonl"):
            option = "--trace-path" if self.kind == "trace" else "--dataset-path"
            raise UsageError(f"--dataset {self.kind} needs {option} FILE")
        if (self.kind == "hf") != (self.hub is not None):
            raise UsageError("--dataset hf:NAME names the data set, and only that kind has one")
        if self.kind == "prefix" and self.prefixes is None:
            raise UsageError("--dataset prefix needs --prefix-len")
        if self.kind in ("sharegpt", "sharegpt-hub"):
            _ = self.sharegpt_rules  # raises now for rules that contradict each other

    @property
    def sharegpt_rules(self) -> ShareGPTRules:
        """The rules for conversations: ShareGPT's own limits where none was given."""
        given = {
            "min_input_length": self.limits.min_input,
            "max_input_length": self.limits.max_input,
            "max_target_length": self.limits.max_target,
        }
        return ShareGPTRules(
            starter=self.starter,
            max_output_length=self.output_length,
            chat_template=self.chat_template,
            **{name: value for name, value in given.items() if value is not None},
        )

    @property
    def entry_rules(self) -> EntryRules:
        """The rules for a user's own data: no limits but those given."""
        return EntryRules(self.limits, self.output_length, self.chat_template)
