"""The command, in a process of its own, on a tiny model and against a server."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from client_rig import ENVIRONMENT, ROOT

from tests.quick import QUICK
from tests.server.running import make_checkpoint

CACHE = ROOT / ".cache"
QUICKLY = ENVIRONMENT | {"XLA_FLAGS": QUICK}
ENGLISH = ROOT / "tests" / "fixtures" / "english.txt"
BODIES = {"twice": "    return 2 * x\n", "thrice": "    return 3 * x\n"}
PROBLEMS = [
    {
        "task_id": f"Test/{number}",
        "prompt": f'def {name}(x):\n    """Some times x."""\n',
        "entry_point": name,
        "canonical_solution": body,
        "test": f"def check(c):\n    assert c(5) == {name}(5) == {5 * (number + 2)}\n",
    }
    for number, (name, body) in enumerate(BODIES.items())
]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="programs are contained by means of Linux"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "client.quality", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=240, env=QUICKLY,
        check=False,
    )  # fmt: skip


def local(model: Path, out: Path, *more: object) -> list[object]:
    """Options of a run on a tiny model."""
    engine = f"--platform cpu --cache-length 64 --prefill-chunk 32 --cache-dir {CACHE}"
    return [
        *("--model", model, "--engine", engine, "--batch-size", 2, "--out", out),
        *("--quantize", "none,int8", "--text", ENGLISH, "--tokens", 100, "--window", 32),
        *("--speed-prompt", 4, "--speed-tokens", 24, "--speed-rounds", 1, *more),
    ]


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("quality-*.json")]
    return {f"{each['weights']} {each['kv_cache']}": each for each in found}


def test_rows_are_measured_kept_and_gone_on_with(
    model: Path, problems: Path, tmp_path: Path
) -> None:
    """A run that is interrupted after its first row, and the same again."""
    out = tmp_path / "out"
    words = local(model, out, "--problems", problems, "--max-new-tokens", 12)
    with subprocess.Popen(
        command(*words), stderr=subprocess.PIPE, text=True, env=QUICKLY
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "[2/2] int8-kv-none: speed" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(60) == 130, rest
    assert "to go on: python -m client.quality" in rest
    first = records(out)["none none"]
    assert all(first[part] for part in ("speed", "perplexity", "humaneval"))
    assert (
        "| int8 |" not in (out / "table.md").read_text()
        or not records(out)["int8 none"]["humaneval"]
    )

    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "[1/2] none-kv-none: done already" in done.stderr
    found = records(out)
    assert found["none none"] == first
    check_row(found["int8 none"])
    check_row(first)
    assert found["int8 none"]["engine"]["weight_bytes"] < first["engine"]["weight_bytes"]
    assert done.stdout.strip() == (out / "table.md").read_text().strip()
    assert sum(line.startswith("|") for line in done.stdout.splitlines()) == 4

    other = run(*words, "--max-new-tokens", 13)
    assert other.returncode == 2
    assert "humaneval, max_tokens was 12 and is now 13; give another --out" in other.stderr


def check_row(record: dict[str, Any]) -> None:
    assert record["format"] == "loadstone-quality-1" and record["failed"] is None
    assert record["perplexity"]["scored_tokens"] == 99
    # Large random weights are sure of themselves, and wrong.
    assert 1000 < record["perplexity"]["perplexity"] < 1e6
    assert record["speed"]["decode_tokens_per_second"] > 0
    assert record["humaneval"]["outcomes"] and record["humaneval"]["pass_at"] == {"1": 0.0}
    assert record["humaneval"]["contained_by"]
    assert record["host"]["jax"] and record["command"].startswith("python -m client.quality")


def test_an_engine_that_cannot_be_built_fails_its_row_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--engine", "--platform cpu --cache-length 99999999999", "--no-speed"]
    done = run(*local(model, out), *words)
    assert done.returncode == 1
    assert done.stderr.count("batch 2 and cache length 99999999999 needs") == 2
    assert "no batch fits" in records(out)["int8 none"]["failed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "/nowhere"], "--text: cannot read /nowhere"),
        (["--problems", "/nowhere"], "cannot read the problems in /nowhere"),
    ],
)
def test_bad_input_is_told_before_anything_is_opened(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(*arguments, "--model", "/nowhere", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {message}" or message in done.stderr
    assert "devices" not in done.stderr


def test_the_judge_is_checked(problems: Path) -> None:
    done = run("--check-judge", "--problems", problems)
    assert done.returncode == 0, done.stderr
    assert "- own solutions: 2 of 2 passed, 2 should" in done.stdout
    assert "- empty programs: 0 of 2 passed, 0 should" in done.stdout
    assert "- the network: " in done.stdout

    wrong = [PROBLEMS[0] | {"canonical_solution": "    return x\n"}, PROBLEMS[1]]
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in wrong))
    done = run("--check-judge", "--problems", problems)
    assert done.returncode == 1
    assert "- own solutions: 1 of 2 passed, 2 should" in done.stdout


def test_another_server_writes_programs(problems: Path, tmp_path: Path) -> None:
    """It goes on for ever; what is wanted is what comes before the next function."""
    out = tmp_path / "out"
    with writing_server() as port:
        words = [
            *("--backend", "openai", "--base-url", f"http://127.0.0.1:{port}", "--label", "awq"),
            *("--model", "written"),
            *("--problems", problems, "--no-speed", "--out", out, "--batch-size", 2),
        ]
        done = run(*words, "--samples", 3, "--temperature", 0.7, "--pass-at", "1,3")
    assert done.returncode == 0, done.stderr
    found = records(out)["awq served"]
    # Of thrice it gets every second one right, by the seed.
    assert found["humaneval"]["tries"] == 6 and found["model_id"] == "written"
    assert found["humaneval"]["pass_at"]["3"] >= found["humaneval"]["pass_at"]["1"] >= 0.5
    assert found["humaneval"]["finish"] == {"cut": 6}
    log = [json.loads(line) for line in next(out.glob("*.jsonl")).read_text().splitlines()]
    texts = {line["completion"] for line in log if line["task_id"] == "Test/0" and "tokens" in line}
    assert texts == {BODIES["twice"]}
    seeds = writing_server.seeds  # type: ignore[attr-defined]
    assert len(set(seeds)) == 6


@contextmanager
def writing_server() -> Iterator[int]:
    """Speaks OpenAI's completions: the right body of a function, then others without end."""
    from aiohttp import web

    seeds: list[int] = []
    writing_server.seeds = seeds  # type: ignore[attr-defined]

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "written"}]})

    async def write(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        seeds.append(asked["seed"])
        assert asked["temperature"] == 0.7
        name = asked["prompt"].split("(")[0].removeprefix("def ")
        wrong = name == "thrice" and asked["seed"] % 2
        body = "    return None\n" if wrong else BODIES[name]
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            for word in [*body.splitlines(keepends=True), *["\ndef more():\n", "    1/0\n"] * 500]:
                event = {"choices": [{"index": 0, "text": word, "finish_reason": None}]}
                await answer.write(f"data: {json.dumps(event)}\n\n".encode())
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass  # it had enough
        return answer

    ready, stop, ports = threading.Event(), threading.Event(), list[int]()

    async def serve() -> None:
        app = web.Application()
        app.add_routes([web.get("/v1/models", models), web.post("/v1/completions", write)])
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield ports[0]
    finally:
        stop.set()
        thread.join(20)
