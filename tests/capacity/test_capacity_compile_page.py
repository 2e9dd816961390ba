"""The page of `capacity compile --page`, with a compiler that is made up."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from capacity.commands import compile as command
from capacity.commands.compile_page import make_page
from capacity.compiled.answer import Answer, Program, Refusal
from capacity.compiled.ask import Ask
from capacity.compiled.process import TimeUpError
from capacity.compiled.target import Target
from capacity.compiled.traffic import Traffic
from capacity.published import jetstream

MIB = 2**20
LIMIT = 16_128 * MIB
FIXED, EACH = 1_000 * MIB, 100 * MIB  # bytes whatever the batch, and of each slot on a chip
ROWS = [row for row in jetstream.MODEL.page.rows if row.batch]


@dataclass
class MadeUp:
    """Answers in proportion to the batch; out of time after so many."""

    most: int = 10_000
    asked: list[tuple[str, str, int, int]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: {"jax": "1.2", "loadstone": "abc"})

    def ask(self, ask: Ask) -> Answer:
        if len(self.asked) == self.most:
            raise TimeUpError("time is up")
        self.asked.append((ask.model["name"], ask.weights, ask.slots, ask.cache_length))
        shared = ask.target.count if ask.sharding == "batch" else 1
        needed = FIXED + EACH * ask.slots // shared
        programs: tuple[Program, ...] = ()
        refusals: tuple[Refusal, ...] = ()
        if needed <= LIMIT:
            moved = {"decode": needed, "prefill 512": FIXED}
            programs = tuple(
                Program(
                    f"{name} {ask.cache_length}", needed - 7 * MIB, 0, 0, 4 * MIB, int(1.5 * MIB),
                    1e9, 0.0, Traffic(size, 0, {}, (), 0, 0), 1, 1,
                )
                for name, size in moved.items()
            )  # fmt: skip
        else:
            refusals = (Refusal("decode", "Used ..", needed, LIMIT),)
        planned = {"weights": FIXED, "cache": EACH * ask.slots // shared, "temporaries": 0}
        every = tuple(one.name for one in programs)
        return Answer(programs, refusals, planned, "v", LIMIT, ask.cache_length, every)


def page(made_up: MadeUp, *options: str) -> tuple[str, BaseException | None]:
    parser = argparse.ArgumentParser()
    command.add(parser)

    @contextlib.contextmanager
    def opened(_: Target) -> Iterator[MadeUp]:
        yield made_up

    return make_page(parser.parse_args(["--page", "002", *options]), opened)


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """Cells by setting and batch."""
    part = text.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {f"{row[0]}, {row[1]}": row[2:] for row in cells}


def test_every_published_row_with_memory_and_rates() -> None:
    made_up = MadeUp()
    text, ended = page(made_up, "--compiles", "0")
    assert ended is None and len(made_up.asked) == len(ROWS) == 13
    memory = rows_of(text, "Memory of one chip, MiB")
    # 1,000 + 80 x 100 MiB, of which 4 are temporaries and 3 the code of two programs.
    fits = memory["llama2-13b bf16, 1,280 positions, v5e-8, 80"]
    assert fits[:7] == ["9,000", "8,993", "4", "3", "16,128", "yes", "9,000"]
    # Keys and values of 40 heads of 128 in 40 layers, bfloat16, over eight chips; each slot also
    # has a few temporaries, and batches are multiples of 8.
    slot = 1280 * 2 * 40 * 40 * 128 * 2 // 8
    assert 0 <= 80 + (LIMIT - 9000 * MIB) // slot - int(fits[7]) < 10
    refused = memory["llama3-8b int8, 2,048 positions, v5e-8, 256"]
    assert refused == ["26,600", "-", "-", "-", "16,128", "no", "26,600", "0"]
    rates = rows_of(text, "Output tokens/s")
    moved, least, limit, cycles, planned, published, share = rates[
        "llama2-13b bf16, 1,280 positions, v5e-8, 80"
    ]
    assert (moved, published, cycles) == ("9.44", "2,911", limit)
    assert float(least) == pytest.approx(9000 * MIB / 819e9 * 1e3, rel=0.01)
    # Slots over the time of a step, less what the prompts take.
    assert 0.3 * 80 / (9.44 / 819) < float(limit.replace(",", "")) < 80 / (9.44 / 819)
    assert share == f"{2911 / float(limit.replace(',', '')):.0%}"
    assert " - " in planned
    assert rates["llama3-8b int8, 2,048 positions, v5e-8, 256"][2] == "-"
    assert "could run instead" not in text and "jax 1.2" in text and "abc" not in text
    assert "    python -m capacity compile --page 002 --compiles 0\n" in text


def test_the_largest_batch_in_place_of_each() -> None:
    made_up = MadeUp()
    text, _ = page(made_up, "--compiles", "4")
    best = rows_of(text, "The batch that it could run instead")
    # (16,128 - 1,000) / 100 a chip; where the batch is shared, eight times as many.
    largest, tried, needs = best["llama2-13b int8, 1,280 positions, v5e-8, 96"][:3]
    assert (largest, needs) == ("144", "15,400")
    assert {"96", "144", "152"} <= set(tried.split(", "))
    assert best["gemma-2b bf16, 2,048 positions, v5e-8, 512"][0] == "1,208"
    # The published batch is the first answer of a search: asked once.
    assert len(set(made_up.asked)) == len(made_up.asked)
    assert made_up.asked[: len(ROWS)] == [
        (row.model, row.weights, row.batch, row.cache_length) for row in ROWS
    ]


@pytest.mark.parametrize("most", [5, 17])
def test_what_was_known_when_time_ran_out(most: int) -> None:
    text, ended = page(MadeUp(most), "--compiles", "4")
    assert isinstance(ended, TimeUpError)
    assert len(rows_of(text, "Memory of one chip")) == min(most, len(ROWS))
    if most < len(ROWS):
        assert (
            "Not compiled, time was up: gemma-2b int8, 2,048 positions, v5e-8, batch 1,024;" in text
        )
        assert "could run instead" not in text
    else:
        best = rows_of(text, "The batch that it could run instead")
        assert best["llama3-8b bf16, 2,048 positions, v5e-8, 128"][0] == "144"
        assert best["llama2-13b int8, 1,280 positions, v5e-8, 96"][0] == "not tried"


def test_json_has_all_of_a_row() -> None:
    text, _ = page(MadeUp(), "--compiles", "4", "--json")
    found = {each["row"]: each for each in json.loads(text)}
    row = found["002-013"]
    assert row["memory_bytes"] == FIXED + 96 * EACH and row["fits"]
    assert (row["largest_batch"], row["largest_batch_exact"]) == (144, True)
    assert row["limit_tokens_per_s"] < row["largest_limit_tokens_per_s"]
    assert found["002-002"]["planned_tokens_per_s"] is None
