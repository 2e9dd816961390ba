"""What can stop a run before it measures anything; each is reported in one line."""


class UsageError(ValueError):
    """A setting or an input file is wrong. The message says what was given and what is allowed."""


class NotReadyError(Exception):
    """The server did not become ready in time."""


class DoesNotFitError(NotReadyError):
    """An engine refused a setting that needs more memory than there is."""
