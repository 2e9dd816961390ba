"""The one place that knows every kind of target."""

from client.targets.settings import TargetSettings
from client.targets.target import Target


def make_target(settings: TargetSettings) -> Target:
    """The target for these settings. What only one of them needs is imported only for it."""
    if settings.kind == "in-process":
        from client.targets.in_process import InProcessTarget

        return InProcessTarget(settings)
    if settings.kind != "jetstream":
        from client.targets.openai import OpenAITarget

        return OpenAITarget(settings)
    if settings.transport == "grpcio":
        from client.targets.jetstream_grpcio import GrpcioTarget

        return GrpcioTarget(settings)
    from client.targets.jetstream import JetStreamTarget

    return JetStreamTarget(settings)
