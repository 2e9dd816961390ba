"""`python -m server`: puts a server together from its rooms and runs it."""

import argparse
import asyncio
import json
import logging
import resource
import signal
import sys
import time
from dataclasses import asdict

import jax

from server import options as command_line
from server.api.config import ServerConfig
from server.api.credentials import Certificate, load_certificate, load_keys
from server.api.event_loop import new_event_loop
from server.api.server import Server
from server.assembly import build_engine, choose_parts
from server.engine.engine import JaxEngine
from server.engine.open import ModelChoice
from tokenization import Tokenizer, TokenizerError


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT. Returns 2 when the settings cannot be served."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("jax").setLevel(logging.WARNING)
    options = command_line.parse(arguments)
    started = time.monotonic()
    try:
        parts = choose_parts(options)
        config = _server_config(options, parts.choice)
        opened = time.monotonic()
        engine = build_engine(options, parts)
        load_seconds = time.monotonic() - opened
    except (ValueError, OSError, TokenizerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.profiler_port is not None:
        jax.profiler.start_server(options.profiler_port)
    name, tokenizer = parts.choice.spec.name, parts.tokenizer
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(engine, tokenizer, config, options, name, started, load_seconds))


async def _serve(
    engine: JaxEngine,
    tokenizer: Tokenizer | None,
    config: ServerConfig,
    options: argparse.Namespace,
    name: str,
    started: float,
    load_seconds: float,
) -> int:
    server = Server(engine, tokenizer, config)
    server.metrics.model_load_time.set(load_seconds)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start()
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    server.metrics.server_startup_latency.set(time.monotonic() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shape = engine.shape
    print(
        f"ready: {name} on {server.address}, batch {shape.slots}, cache length "
        f"{shape.cache_length}; started in {time.monotonic() - started:.0f} s, peak host memory "
        f"{peak:.2f} GiB",
        file=sys.stderr,
        flush=True,
    )
    if server.http_url is not None:
        print(f"HTTP: {server.http_url}/v1", file=sys.stderr, flush=True)
    if server.metrics_port is not None:
        print(f"metrics: http://localhost:{server.metrics_port}/metrics", file=sys.stderr)
    if options.ready_file is not None:
        ready = {
            "port": server.port,
            "http_port": server.http_port,
            "metrics_port": server.metrics_port,
            "plan": asdict(engine.summary),
        }
        options.ready_file.write_text(json.dumps(ready))
    await stop.wait()
    print("draining: no new requests", file=sys.stderr)
    drained = await server.stop(options.drain_seconds)
    print("stopped" if drained else "stopped with requests unfinished", file=sys.stderr)
    return 0 if drained else 1


def _server_config(options: argparse.Namespace, choice: ModelChoice) -> ServerConfig:
    longest = options.max_prompt_length or choice.spec.max_positions
    return ServerConfig(
        host=options.host,
        port=options.port,
        http_port=options.http_port,
        model_name=options.served_model_name or choice.spec.name,
        certificate=_certificate(options),
        keys=None if options.api_key_file is None else load_keys(options.api_key_file),
        metrics_host=options.host,
        metrics_port=options.metrics_port,
        queue_limit=options.queue_limit,
        prefills_per_decode=options.prefills_per_decode,
        max_prompt_length=longest,
        rolling=options.rolling,
        max_message_bytes=options.max_message_bytes,
    )


def _certificate(options: argparse.Namespace) -> Certificate | None:
    certificate, key = options.tls_cert, options.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("--tls-cert and --tls-key go together; give both or neither")
    return load_certificate(certificate, key)


if __name__ == "__main__":
    sys.exit(main())
