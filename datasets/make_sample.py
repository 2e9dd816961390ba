"""Writes sample_sharegpt.json, or prints how long its prompts and replies are.

    python datasets/make_sample.py            write the file
    python datasets/make_sample.py --stats    print quantiles, in tokens of the default model

The text comes from sample_material.toml and the same material always gives the same file.
"""

import argparse
import json
import random
import sys
import tomllib
from pathlib import Path
from statistics import quantiles

import genres_data as data
import genres_text as text

HERE = Path(__file__).parent
OUTPUT = HERE / "sample_sharegpt.json"
SEED = 20

# How many of each, chosen so that lengths spread as in ShareGPT (see README.md).
GENRES = (
    (text.explain, 16),
    (text.myth, 8),
    (text.article, 26),
    (text.guide, 12),
    (text.compare, 4),
    (text.quiz, 8),
    (text.cloze, 8),
    (text.odd_one, 9),
    (text.extract, 9),
    (text.glossary, 4),
    (text.advice, 15),
    (text.email, 10),
    (text.code, 12),
    (text.bug, 8),
    (text.itinerary, 6),
    (text.given, 29),
    (data.sales, 6),
    (data.hours, 6),
    (data.harvest, 6),
    (data.log, 10),
    (data.meeting, 12),
    (data.review, 8),
    (data.recipe, 7),
    (data.cook, 2),
    (data.arithmetic, 6),
    (data.towns, 4),
)


def main() -> None:
    """Does what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stats", action="store_true", help="print lengths instead of writing")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write (%(default)s)")
    arguments = parser.parse_args()
    if arguments.stats:
        print_stats()
    else:
        arguments.output.write_text(sample(), encoding="utf-8")


def sample() -> str:
    """Returns the file's content."""
    material = tomllib.loads((HERE / "sample_material.toml").read_text(encoding="utf-8"))
    conversations = []
    for genre, count in GENRES:
        # Each genre has its own numbers, so a change in one leaves the others as they are.
        made = list(genre(material, random.Random(f"{SEED} {genre.__name__}")))
        if len(made) < count:
            raise ValueError(f"{genre.__name__} makes {len(made)} conversations, {count} wanted")
        conversations += made[:count]
    random.Random(SEED).shuffle(conversations)
    entries = [_entry(number, turns) for number, turns in enumerate(conversations, start=1)]
    return json.dumps(entries, ensure_ascii=False, indent=1) + "\n"


def print_stats() -> None:
    """Prints quantiles of the first prompt and the first reply of each conversation."""
    sys.path.insert(0, str(HERE.parent))
    from tokenization import default_model_path, load_tokenizer

    tokenizer = load_tokenizer(default_model_path())
    entries = json.loads(OUTPUT.read_text(encoding="utf-8"))
    print(f"{len(entries)} conversations, tokens of the default model")
    for name, turn in (("prompt", 0), ("first reply", 1)):
        lengths = [
            len(tokenizer.encode(entry["conversations"][turn]["value"])) for entry in entries
        ]
        tenths = quantiles(lengths, n=10)
        print(
            f"{name:12} min {min(lengths)}  p50 {tenths[4]:.0f}  p90 {tenths[8]:.0f}  "
            f"max {max(lengths)}"
        )


def _entry(number: int, turns: list[str]) -> dict[str, object]:
    speakers = ("human", "gpt")
    return {
        "id": f"sample_{number:04}",
        "conversations": [
            {"from": speakers[index % 2], "value": turn} for index, turn in enumerate(turns)
        ],
    }


if __name__ == "__main__":
    main()
