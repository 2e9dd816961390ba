"""`python -m capacity compile` on the CPU at hand, and what it says when it cannot."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from capacity.__main__ import main
from capacity.compiled import worker
from capacity.compiled.answer import Answer, Program, Refusal
from capacity.compiled.ask import Ask
from capacity.compiled.kept import Kept
from capacity.compiled.roofline import floor, throughput
from capacity.compiled.target import Target, target_of
from capacity.compiled.traffic import Collective, Copy, Traffic
from capacity.hardware.chips import known_chips
from capacity.hardware.slice import find_slice
from capacity.tables.compiled import findings
from client.errors import UsageError
from tests.models.tiny import tiny_spec

MIB = 2**20
TINY = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
    "vocab_size": 256, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "eos_token_id": 2,
    "hidden_act": "silu", "tie_word_embeddings": False, "max_position_embeddings": 2048,
}  # fmt: skip


# So that none is measured; 0.004 GiB hold a dozen slots of the model.
CPU = "[cpu]\nkind = 'cpu'\nmemory_gib = {}\nbandwidth_gbps = 10\nfp32_tops = 0.1\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "chips.toml").write_text(CPU.format(4))
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY))
    return folder


def ask_for(model: Path, folder: Path, *more: str) -> list[str]:
    return [
        "compile", "--model", str(model), "--cache-dir", str(folder / "kept"),
        "--cache-length", "128", "--prefill-chunk", "64",
        "--chips", str(folder / "chips.toml"), *more,
    ]  # fmt: skip


def program(name: str, **changes: object) -> Program:
    empty = Program(name, 0, 0, 0, 0, 0, 0.0, 0.0, Traffic(0, 0, {}, (), 0, 0), 0, 0)
    return replace(empty, **changes)


def answer(*programs: Program, refusals: tuple[Refusal, ...] = (), limit: int = 16 * MIB) -> Answer:
    planned = {"weights": 1, "cache": 1, "temporaries": 1}
    every = ("decode 128", "prefill 32 128", "prefill 64 128", "release")
    return Answer(programs, refusals, planned, "made up", limit, 128, every)


def test_the_engines_programs_on_this_cpu(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process of their own; asked again, nothing is compiled."""
    command = ask_for(model, tmp_path, "--slice", "cpu", "--batch-size", "4", "--json")
    assert main(command) == 0
    first = capsys.readouterr()
    found = json.loads(first.out)
    programs = {one["name"]: one for one in found["answer"]["programs"]}
    assert list(programs) == ["decode 128", "prefill 64 128", "prefill 32 128"]
    kept = found["answer"]["planned"]
    for one in programs.values():
        assert one["donated"] == one["donatable"] > 0 and one["flops"] > 0
        assert one["aliased"] >= kept["cache"]
        assert one["arguments"] == pytest.approx(kept["weights"] + kept["cache"], rel=0.02)
    assert "compiling" in first.err
    assert main(command) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == found and "compiling" not in again.err


def test_a_table_and_the_largest_batch(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a chip so small that few slots fit."""
    (tmp_path / "chips.toml").write_text(CPU.format(0.004))
    out = tmp_path / "out" / "table.md"
    command = ask_for(
        model, tmp_path, "--slice", "cpu", "--programs", "decode",
        "--largest-batch", "--compiles", "6", "--out", str(out), "--batch-step", "4",
    )  # fmt: skip
    assert main(command) == 0
    text = capsys.readouterr().out
    assert out.read_text() == text
    assert "Largest batch: " in text and "no more fit" in text
    assert "Weights and cache" in text and "decode 128" in text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--slice", "v9x-8", "--batch-size", "8"], "v5e"),
        (["--slice", "v5e-8"], "--largest-batch"),
        (["--slice", "l4", "--batch-size", "8"], "h100"),
        (["--slice", "h100x8", "--batch-size", "8"], "--present"),
        (["--slice", "cpu", "--batch-size", "8", "--programs", "some"], "ends, decode, all"),
        (["--slice", "cpu", "--batch-size", "8", "--quantize", "int3"], "nf4"),
        (["--slice", "cpu", "--batch-size", "8", "--compiles", "0"], "1 or more"),
        (["--slice", "cpu", "--batch-size", "8", "--time-limit", "-1"], "above 0"),
        (["--slice", "cpu", "--batch-size", "8", "--time-limit", "0.01"], "--time-limit"),
        (["--slice", "cpu", "--batch-size", "8", "--python", "/no/python"], "/no/python"),
        ([], "--page"),
    ],
    ids=str,
)
def test_what_cannot_be_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert main(ask_for(model, tmp_path, *more)) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("platform", "extra"), [("tpu", "tpu"), ("gpu", "gpu"), ("cpu", "server")])
def test_a_missing_compiler_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, platform: str, extra: str
) -> None:
    monkeypatch.setattr(worker, "versions", dict)
    with pytest.raises(worker.CannotCompileError) as caught:
        worker._require_compiler(Target("x", platform, 1, "", 1, {}))
    assert f"loadstone[{extra}]" in str(caught.value) and sys.executable in str(caught.value)


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        ("Used 18.50G of 15.75G hbm. Exceeded", (int(18.5 * 2**30), int(15.75 * 2**30))),
        ("Used 512.0M of 1.00K hbm", (512 * MIB, 1024)),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (35.25G) "
            "exceeds available HBM (15.75G).",
            (int(35.25 * 2**30), int(15.75 * 2**30)),
        ),
        ("something else", (None, None)),
    ],
)
def test_the_compilers_numbers(message: str, sizes: tuple) -> None:
    assert worker._refused(message) == sizes


@pytest.mark.parametrize(
    ("name", "topology", "options"),
    [
        ("v5e-8", "v5e:2x4", {"accelerator_type": "v5litepod-8"}),
        ("v5e-1", "v5e:1x1", {"accelerator_type": "v5litepod-1", "chips_per_host_bounds": "1,1,1"}),
        ("v4-8", "v4:2x2x1", {"accelerator_type": "v4-8", "chip_config_name": "megacore"}),
    ],
)
def test_what_the_compiler_is_told_of_a_slice(name: str, topology: str, options: dict) -> None:
    target = target_of(find_slice(name, known_chips()))
    assert (target.topology, target.options) == (topology, options)
    assert target.environment()["TPU_ACCELERATOR_TYPE"] == options["accelerator_type"]


def test_memory_is_what_stays_the_worst_program_and_all_code() -> None:
    found = answer(
        program("decode 128", arguments=8 * MIB, results=4 * MIB, aliased=3 * MIB, code=MIB),
        program("prefill 64 128", arguments=8 * MIB, temporaries=3 * MIB, code=2 * MIB),
    )
    # Two prefills with 2 MiB of code each, of which one was compiled; the release has none.
    assert (found.code, found.memory) == (5 * MIB, 16 * MIB)
    assert found.fits and not replace(found, limit=16 * MIB - 1).fits


def test_a_refusal_does_not_fit() -> None:
    found = answer(refusals=(Refusal("decode 128", "Used ..", 20 * MIB, 16 * MIB),))
    assert not found.fits and found.memory == 20 * MIB


def test_answers_and_asks_come_back_from_json() -> None:
    collectives = {"all-reduce": Collective(2, 100)}
    moved = Traffic(1, 2, collectives, (Copy("cache", 3),), 4, 5, 6)
    found = answer(program("decode 128", traffic=moved), refusals=(Refusal("x", "y"),))
    assert Answer.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    ask = Ask(Target("v5e-8", "tpu", 8, "v5e:2x4", 1, {"a": "b"}), asdict(tiny_spec()), 8)
    assert Ask.from_dict(json.loads(json.dumps(ask.as_dict()))).slots == 8
    assert ask.key({"jax": "1"}) != ask.key({"jax": "2"}) != ask.with_slots(9).key({"jax": "2"})


def test_what_is_kept_comes_back_and_what_is_broken_does_not(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.save("a", {"code": 1, "text": "HloModule x"})
    assert kept.load("a") == {"code": 1, "text": "HloModule x"}
    (tmp_path / "programs" / "a.hlo.gz").write_bytes(b"half")
    assert kept.load("a") is None and kept.load("b") is None


def test_a_floor_is_the_slowest_of_memory_and_arithmetic_and_then_the_links() -> None:
    where = find_slice("v5e-8", known_chips())
    moved = Traffic(int(819e9), 0, {"all-reduce": Collective(1, 8_000_000)}, (), 0, 3_000_000_000)
    found = floor(program("decode 128", traffic=moved, flops=1e12), where, "none")
    assert found.memory == pytest.approx(819e9 / where.chip.bandwidth)
    assert found.compute == pytest.approx(1e12 / where.chip.peak("bf16"))
    assert found.links == pytest.approx(2 * 7 / 8 * 8e6 / where.link + where.latency)
    assert found.total == pytest.approx(max(found.memory, found.compute) + found.links)
    assert found.expected == pytest.approx(2.0)


def test_rates_are_bounded_by_steps_and_prompts() -> None:
    where = find_slice("v5e-1", known_chips())
    second = int(where.chip.bandwidth)
    programs = (
        program("decode 128", traffic=Traffic(second, 0, {}, (), 0, 0)),
        program("prefill 64 128", traffic=Traffic(second, 0, {}, (), 0, 0)),
    )
    found = throughput(
        answer(*programs), 10, 1, where, "none", np.asarray([64, 128]), np.asarray([15])
    )
    # A token takes a tenth of a second, a prompt 1.5 dispatches for 15 tokens.
    assert found is not None
    assert (found.decode, found.served) == (pytest.approx(10), pytest.approx(5))
    assert throughput(answer(), 10, 1, where, "none", np.ones(1), np.ones(1)) is None


def test_what_stands_out_is_named() -> None:
    moved = Traffic(
        0, 0, {"all-gather": Collective(3, 5 * MIB)}, (Copy("the cache", 7 * MIB),), 2, 0, 1
    )
    said = "\n".join(findings(answer(program("decode 128", traffic=moved, donatable=4, donated=3))))
    for words in ("1 of 4 arrays", "the cache", "3 all-gathers", "2 scatters", "1 loops"):
        assert words in said


def test_unknown_slices_name_those_that_can_be_compiled_for() -> None:
    with pytest.raises(UsageError, match="v4, v5e, v5p, v6e"):
        target_of(find_slice("l4", known_chips()))
