"""How the server listens and what it accepts."""

from dataclasses import dataclass, fields

from server.api.credentials import Certificate, Keys


@dataclass(frozen=True)
class ServerConfig:
    """Port 0 picks a free one. `metrics_port` None serves no metrics, `http_port` None no HTTP.

    `certificate` turns TLS on and `keys` asks every client for one, for gRPC and HTTP both; the
    metrics port has neither. `model_name` is what HTTP clients call the model.

    Lengths of prompts and of generation count tokens. With `rolling` a request may grow past the
    cache, and attends to its last `cache_length` tokens; without it, prompt and generation
    together must fit in the cache. `default_max_tokens` bounds an answer for which the client gave
    no number of tokens.

    `max_choices` bounds the prompts of an HTTP request times its `n`. A client that reads nothing
    of its HTTP stream for `stall_seconds` is hung up on.
    """

    host: str = "0.0.0.0"
    port: int = 9000
    http_port: int | None = None
    model_name: str = "model"
    certificate: Certificate | None = None
    keys: Keys | None = None
    metrics_host: str = "0.0.0.0"
    metrics_port: int | None = None
    queue_limit: int = 16_384
    prefills_per_decode: int = 1
    max_prompt_length: int = 32_768
    max_tokens: int = 32_768
    default_max_tokens: int = 2_048
    rolling: bool = True
    max_message_bytes: int = 4 * 1024 * 1024
    max_stop_strings: int = 16
    max_stop_length: int = 256
    max_choices: int = 256
    stall_seconds: int = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("port"):
                if value is not None and not 0 <= value <= 65_535:
                    raise ValueError(f"{field.name} is {value}; a port is 0 (any) to 65535")
            elif isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{field.name} is {value}; it must be at least 1")
