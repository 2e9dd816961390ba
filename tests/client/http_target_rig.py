"""Asks the scripted HTTP server through the HTTP target."""

from http_asked import PIECES
from target_rig import asking, run

from client.targets.settings import TargetSettings

TEXT = "".join(PIECES[index % 4] for index in range(8))
TWO = "".join(PIECES[:2])
DONE = ("completed", "")
LOST, MALFORMED, TIMEOUT = (
    ("failed", cause) for cause in ("connection lost", "malformed answer", "timeout")
)


def settings_for(port: int, kind: str = "openai", **changes) -> TargetSettings:
    usual = {"kind": kind, "server": "127.0.0.1", "port": port, "connections": 4}
    return TargetSettings(**usual | {"request_timeout": 20.0, "connect_timeout": 10.0} | changes)


def asked(port: int, prompts, meanwhile=None, loop="uvloop", **changes):
    return run(asking(settings_for(port, **changes), prompts, meanwhile), loop)
