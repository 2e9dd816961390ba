"""How long prompts and answers may be."""

from dataclasses import dataclass

from client.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens; None is no limit. `max_target` is for prompt and answer together."""

    min_input: int | None = None
    max_input: int | None = None
    max_target: int | None = None

    def __post_init__(self) -> None:
        rules = (("min_input", 1), ("max_input", 1), ("max_target", 2))
        for name, least in rules:
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name}_length: {least} or more; got {value}")
        if None not in (self.min_input, self.max_input) and self._crossed():
            raise UsageError(
                f"min_input_length {self.min_input} is above max_input_length {self.max_input}"
            )

    def allow(self, inputs: int, outputs: int) -> bool:
        """Whether a prompt of `inputs` tokens that asks for `outputs` is within the limits."""
        return (
            inputs >= (self.min_input or 1)
            and (self.max_input is None or inputs <= self.max_input)
            and (self.max_target is None or inputs + outputs <= self.max_target)
        )

    def clip(self, inputs: int, outputs: int) -> tuple[int, int]:
        """The lengths cut to the limits: the prompt first, then the answer, neither below 1."""
        if self.max_input is not None:
            inputs = min(inputs, self.max_input)
        if self.max_target is not None:
            inputs = min(inputs, self.max_target - 1)
            outputs = min(outputs, self.max_target - inputs)
        return inputs, outputs

    def _crossed(self) -> bool:
        return (self.min_input or 0) > (self.max_input or 0)
