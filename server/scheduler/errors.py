"""Why a request is not taken in."""


class Refused(Exception):
    """The request was not taken in; its message tells the owner what to do."""


class QueueFull(Refused):
    """The bounded queue holds as many requests as it may."""


class ShuttingDown(Refused):
    """The engine loop is draining or has stopped."""


class EngineLost(Refused):
    """The engine failed and cannot serve any more."""
