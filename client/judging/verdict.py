"""What became of a candidate."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How an exam ended."""

    PASSED = "passed"
    WRONG = "wrong"  # a test failed
    RAISED = "raised"  # an exception, when the program was loaded or called
    TIMEOUT = "timeout"  # processor time or patience used up
    DIED = "died"  # its process ended before the tests did


@dataclass(frozen=True)
class Verdict:
    """`detail` is a short text for people, and may come from the candidate itself."""

    outcome: Outcome
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.outcome is Outcome.PASSED
