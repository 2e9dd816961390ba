"""The published pages' own sizes on the GPU of this machine, with random weights.

    python -m benchmarks.gpu_pages --out FOLDER --minutes 25 --transformers-python PATH

Runs `python -m client.offline` for each page in turn: BLOOM 1.3B until memory is out, decode steps
of Llama 3.1 8B, whole forwards of StarCoder2 7B, forwards with loss. A page gets its share of the
time; what is not done by then is left out and said so, and the same command goes on with it. Tables
in our units and in the page's go to FOLDER as Markdown. Peaks for the roofline are those of the
card's data sheet, dense.
"""

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# GB/s and bf16 TFLOP/s: NVIDIA's data sheets of the SXM cards (40 GB A100: PCIe and SXM alike).
PEAKS = {
    "H200": (4800.0, 989.0),
    "H100": (3350.0, 989.0),
    "A100-SXM4-80GB": (2039.0, 312.0),
    "A100-SXM4-40GB": (1555.0, 312.0),
}
_BATCHES = "1,2,4,8,16,32,64,128,256,512,1024,1536,2048,3072,4096"
_STOP_SECONDS = 60.0  # for a run to write what it has


@dataclass(frozen=True)
class Page:
    """One call of the benchmark. `share`: of the time that is left when it begins, in parts of all
    shares to come."""

    name: str
    share: float
    words: tuple[str, ...]


def pages() -> tuple[Page, ...]:
    """In order; the first are those that answer most."""
    decode = "--preset decode-step --quantize none,int8,nf4 --transformers-kinds bfloat16,int8,nf4"
    generate = f"--preset generate --batch-sizes {_BATCHES} --timed 3"
    passes = "--preset uncached-forward --quantize none --warmups 1 --timed 2"
    loss = "--preset forward-loss --quantize none,int8"
    return (
        Page("decode-step", 3, tuple(shlex.split(decode))),
        Page("generate", 4, tuple(shlex.split(generate))),
        Page("uncached-forward", 4, tuple(shlex.split(passes))),
        Page("forward-loss", 2, tuple(shlex.split(loss))),
    )


def main() -> int:
    """Runs the pages that were asked for; 0 when all were done in time."""
    options = _parse()
    wanted = [page for page in pages() if page.name in options.pages]
    options.out.mkdir(parents=True, exist_ok=True)
    common = _common(options)
    if options.dry_run:
        for page in wanted:
            print(shlex.join(_command(page, options.out, common)))
        return 0
    end = time.monotonic() + 60 * options.minutes
    statuses = []
    for place, page in enumerate(wanted):
        shares = sum(each.share for each in wanted[place:])
        seconds = (end - time.monotonic()) * page.share / shares
        statuses.append(_run(page, options.out, common, seconds))
    return max(statuses, default=0)


def _run(page: Page, out: Path, common: Sequence[str], seconds: float) -> int:
    command = _command(page, out, common)
    if seconds <= 0:
        print(f"{page.name}: no time is left", flush=True)
        return 1
    print(f"{page.name}: {seconds:.0f} s: {shlex.join(command)}", flush=True)
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        # As Ctrl-C would: points that are done are kept.
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    _copy_tables(page, out, command)
    return status


def _copy_tables(page: Page, out: Path, command: Sequence[str]) -> None:
    table = out / page.name / "table.md"
    if not table.exists():
        return
    shutil.copy(table, out / f"{page.name}.md")
    shown = [*command, "--definition", "page", "--only-show"]
    done = subprocess.run(shown, capture_output=True, text=True, check=False)
    if done.stdout:
        (out / f"{page.name}-as-published.md").write_text(done.stdout, encoding="utf-8")


def _command(page: Page, out: Path, common: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "client.offline", *page.words, *common]
    return [*command, "--out", str(out / page.name)]


def _common(options: argparse.Namespace) -> list[str]:
    words = ["--point-seconds", str(options.point_seconds)]
    if options.transformers_python:
        words += ["--transformers-python", options.transformers_python]
    if options.cache_dir:
        words += ["--cache-dir", options.cache_dir]
    peaks = _peaks(options.device or _device())
    if peaks is not None:
        words += ["--bandwidth-gbps", str(peaks[0]), "--peak-tflops", str(peaks[1])]
    return words


def _peaks(device: str) -> tuple[float, float] | None:
    """Of a card by its name, as nvidia-smi has it."""
    name = device.replace(" ", "-").upper()
    return next((peaks for card, peaks in PEAKS.items() if card in name), None)


def _device() -> str:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemExit(f"nvidia-smi finds no GPU ({error}); name one with --device") from error
    return done.stdout.strip().splitlines()[0]


def _parse() -> argparse.Namespace:
    names = [page.name for page in pages()]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and points")
    parser.add_argument("--minutes", type=float, default=25.0, help="for all pages together")
    parser.add_argument("--pages", nargs="+", choices=names, default=names)
    parser.add_argument("--point-seconds", type=float, default=300.0, help="for one point")
    parser.add_argument("--transformers-python", help="python of an environment with it")
    parser.add_argument("--cache-dir", help="of compiled programs")
    parser.add_argument("--device", help="name of the card (default: nvidia-smi's)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
