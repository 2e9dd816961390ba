"""What goes wrong with tokenizer files, chat templates and text that cannot be encoded."""


class TokenizerError(ValueError):
    """A tokenizer file, a chat template or a text that cannot be used; the message says why."""
