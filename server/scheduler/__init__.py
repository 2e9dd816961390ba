"""Which request runs when. Pure Python: it knows an engine only by `server.engine.protocol`."""

from server.engine.protocol import Engine, EngineShape, Finish, Sampling, Token
from server.scheduler.errors import EngineLost, QueueFull, Refused, ShuttingDown
from server.scheduler.event import Cause, Event, Failure
from server.scheduler.loop import EngineLoop, Sink
from server.scheduler.plan import Decode, Plan, Prefill
from server.scheduler.request import Request, State
from server.scheduler.scheduler import Scheduler, Stats
from server.scheduler.turns import Policy, Turns

__all__ = [
    "Cause",
    "Decode",
    "Engine",
    "EngineLoop",
    "EngineLost",
    "EngineShape",
    "Event",
    "Failure",
    "Finish",
    "Plan",
    "Policy",
    "Prefill",
    "QueueFull",
    "Refused",
    "Request",
    "Sampling",
    "Scheduler",
    "ShuttingDown",
    "Sink",
    "State",
    "Stats",
    "Token",
    "Turns",
]
