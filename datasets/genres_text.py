"""Conversations about texts: each function yields turns, the user's first, from the material."""

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

Turns = list[str]
Material = dict[str, Any]

_ASKS = (
    "Can you explain {} to me?",
    "what's the idea behind {}? keep it simple",
    "I have to explain {} to my class tomorrow. How would you put it?",
    "Explain {} in a short paragraph.",
    "What is there to know about {}?",
    "I keep reading about {} and never quite understood it. Help?",
    "In your own words, what should everyone know about {}?",
    "Give me a quick introduction to {}, please. I am not an expert but I do not mind details.",
)
_ARTICLE_TASKS = (
    "Summarise the following text in one sentence per section.",
    "Below are my notes for a talk. Give me a slide title and two bullets for each section.",
    "Turn this article into a list of questions and answers for our website.",
)


def explain(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A question about one subject, with none, one or two more turns."""
    for number, card in enumerate(_shuffled(material["card"], rng)):
        turns = [_ASKS[number % len(_ASKS)].format(_inner(card["name"]))]
        turns.append("\n\n".join((f"{card['what']} {card['how']}", card["why"])))
        turns[-1] += f" {card['example']}" if number % 4 else ""
        if number % 2:
            turns[-1] += f"\n\nA common mistake is to think that {card['myth']}. {card['truth']}"
        elif number % 4 == 0:
            turns += ["Can you give me an example?", card["example"]]
        if number % 8 == 0:
            turns += [f"Someone told me that {card['myth']}. Is that right?", card["truth"]]
        yield turns


def myth(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A belief to put right."""
    asks = ("Is it true that {}?", "My uncle says {}. Is he right?", "true or false: {}")
    for number, card in enumerate(_shuffled(material["card"], rng)):
        answer = ("Not quite.", "I am afraid not.", "False.")[number % 3] + f" {card['truth']}"
        if number % 3 < 2:
            answer += f"\n\nSome background: {card['what']} {card['how']} {card['why']}"
        yield [asks[number % 3].format(card["myth"]), answer]


def article(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A long text to work on."""
    groups = _groups(material)
    for task, name in itertools.product(range(len(_ARTICLE_TASKS)), _shuffled(groups, rng)):
        cards = _shuffled(groups[name], rng)[: 3 if task == 1 else 4]
        text = "\n\n".join(f"{card['name']}\n\n{_section(card)}" for card in cards)
        answer = "\n\n".join(_article_answer(task, card) for card in cards)
        yield [f"{_ARTICLE_TASKS[task]}\n\n{text}", answer]


def guide(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A short wish for a long text, on all subjects of a group or on three of them."""
    groups = _groups(material)
    for number, cards in enumerate([*groups.values(), *groups.values()]):
        if number >= len(groups):
            cards = _shuffled(cards, rng)[:3]
        names = _listed([_inner(card["name"]) for card in cards])
        terms = ", ".join(term for card in cards for term, _ in card["terms"])
        ask = rng.choice(
            (
                f"Write a study guide that covers {names}. Include these key terms: {terms}.",
                f"I have an exam on {names}. Please put together a thorough revision sheet with "
                f"the main ideas, examples and vocabulary. Our list of words is: {terms}.",
                f"Draft a chapter on {names}, with a section for each, for readers of fifteen. At "
                f"the end of a section explain the words that are on the syllabus ({terms}).",
            )
        )
        yield [ask, "\n\n".join(_guide_section(card) for card in cards)]


def compare(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Two subjects side by side."""
    for cards in _groups(material).values():
        one, two = rng.sample(cards, 2)
        answer = (
            f"{one['what']}\n\n{two['what']}\n\nThe difference in short:\n\n"
            f"| | {one['name']} | {two['name']} |\n|---|---|---|\n"
            f"| Key term | {one['terms'][0][0]} | {two['terms'][0][0]} |\n"
            f"| Common mistake | that {one['myth']} | that {two['myth']} |\n\n"
            f"Why each matters: {one['why']} {two['why']}"
        )
        names = f"{_inner(one['name'])} and {_inner(two['name'])}"
        yield [f"I mix up my notes on {names}. Put the two side by side in a table.", answer]


def quiz(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Questions on a pasted passage."""
    for card in _shuffled(material["card"], rng):
        ask = f"Make five quiz questions with answers from this text:\n\n{_passage(card)}"
        pairs = [(f'What is meant by "{term}"?', f"{text}.") for term, text in card["terms"]]
        pairs += [
            (f"What matters about {_inner(card['name'])}?", card["why"]),
            ("Give an example.", card["example"]),
        ]
        parts = [
            f"{i}. {asked}\n   Answer: {told}" for i, (asked, told) in enumerate(pairs, start=1)
        ]
        yield [ask + "\n\n" + _term_notes(card), "\n".join(parts)]


def cloze(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A passage with gaps."""
    for card in _shuffled(material["card"], rng):
        words = sorted({w for w in card["how"].split() if w.isalpha() and len(w) > 6})
        chosen = set(rng.sample(words, min(5, len(words))))
        gone: list[str] = []
        kept = []
        for word in card["how"].split():
            gap = word in chosen and word not in gone
            gone += [word] if gap else []
            kept.append(f"({len(gone)}) ____" if gap else word)
        text = " ".join(kept)
        answers = "\n".join(f"({number}) {word}" for number, word in enumerate(gone, start=1))
        yield [
            f"Fill in the gaps, please. The subject is {_inner(card['name'])}.\n\n"
            f"{card['what']} {text}\n\nWords: {', '.join(sorted(gone))}",
            f"{answers}\n\nWith these words the passage reads:\n\n{card['how']}",
        ]


def odd_one(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Statements of which one is wrong."""
    for cards in _groups(material).values():
        wrong, *others = _shuffled(cards, rng)
        statements = [wrong["myth"][0].upper() + wrong["myth"][1:] + "."]
        far = [card for card in material["card"] if card["group"] != wrong["group"]]
        others += rng.sample(far, 3)
        statements += [_first_sentence(card["what"]) for card in others]
        statements = _shuffled(statements, rng)
        place = next(i for i, text in enumerate(statements) if text[1:-1] == wrong["myth"][1:])
        listed = "\n".join(f"{i}. {text}" for i, text in enumerate(statements, start=1))
        yield [
            f"One of these statements is false. Which, and why?\n\n{listed}",
            f"Number {place + 1} is the false one. {wrong['truth']}\n\nFor context: "
            f"{wrong['what']} {wrong['how']}",
        ]


def extract(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A passage to turn into data."""
    for card in _shuffled(material["card"], rng):
        content = {
            "topic": card["name"],
            "summary": _first_sentence(card["what"]),
            "example": card["example"],
            "why_it_matters": card["why"],
            "terms": dict(card["terms"]),
        }
        yield [
            "Return a JSON object with the fields topic, summary, example, why_it_matters and "
            "terms (term to definition) for this passage. No other text.\n\n"
            f"{card['name']}. {_passage(card)} "
            f"{_term_notes(card)}",
            "```json\n" + json.dumps(content, indent=2) + "\n```",
        ]


def glossary(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Terms to define."""
    for name, cards in _groups(material).items():
        terms = sorted(term for card in cards for term in card["terms"])
        listed = ", ".join(term for term, _ in terms)
        answer = "\n".join(f"- **{term}**: {meaning}" for term, meaning in terms)
        yield [f"Define these words from my {name} course in a line each: {listed}", answer]


def advice(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A question from everyday life."""
    for number, entry in enumerate(material["advice"]):
        marks = itertools.repeat("-") if number % 3 == 1 else (f"{i}." for i in itertools.count(1))
        tips = "\n".join(f"{mark} {tip}" for mark, tip in zip(marks, entry["tips"], strict=False))
        turns = [entry["ask"], f"{tips}\n\n{entry['close']}"]
        if number % 4 == 0:
            first = entry["tips"][0]
            turns += ["That is a lot. If I do only one thing, which?", f"The first: {first}"]
        yield turns


def email(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A draft to rewrite."""
    for entry in material["email"]:
        yield [f"{entry['ask']}\n\n{entry['draft']}", entry["formal"]]


def code(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Something to program."""
    for entry in material["code"]:
        yield [entry["ask"], f"{_fenced(entry['language'], entry['code'])}\n\n{entry['notes']}"]


def bug(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A program that does not do what it should."""
    for entry in material["bug"]:
        asked = f"{entry['symptom']} What is wrong here?"
        shown = _fenced(entry["language"], entry["code"])
        answer = f"{entry['cause']}\n\n{_fenced(entry['language'], entry['fixed'])}"
        yield [f"{asked}\n\n{shown}", answer]


def itinerary(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Days in a city."""
    for number, city in enumerate(material["city"] * 2):
        days = (3, 2)[number // len(material["city"])]
        sights = city["sights"] if days == 3 else city["sights"][::-1][:4]
        parts = []
        for day in range(days):
            (first, morning), (second, afternoon) = sights[2 * day : 2 * day + 2]
            parts.append(
                f"**Day {day + 1}**\n\nMorning: {first}. {morning}\n\n"
                f"Afternoon: {second}. {afternoon}"
            )
        parts.append(f"**What to eat:** {city['food']}")
        parts.append(f"**Getting around:** {city['transport']}")
        who = rng.choice(
            ("us. We are two adults who like to walk.", "me. I travel alone and like museums.")
        )
        yield [f"Plan {days} days in {city['name']} for {who}", "\n\n".join(parts)]


def given(material: Material, rng: random.Random) -> Iterator[Turns]:
    """What is written out in full: stories, other languages, dialogues."""
    for entry in material["story"]:
        yield [entry["ask"], entry["text"]]
    for entry in material["foreign"]:
        yield [entry["ask"], entry["reply"]]
    for entry in material["dialogue"]:
        yield list(entry["turns"])


def _groups(material: Material) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for card in material["card"]:
        groups.setdefault(card["group"], []).append(card)
    return groups


def _passage(card: dict[str, Any]) -> str:
    return " ".join((card["what"], card["how"], card["why"], card["example"]))


def _term_notes(card: dict[str, Any]) -> str:
    return " ".join(f"{term[0].upper()}{term[1:]}: {meaning}." for term, meaning in card["terms"])


def _section(card: dict[str, Any]) -> str:
    return (
        f"{_passage(card)}\n\nMany people believe that {card['myth']}. {card['truth']}\n\n"
        f"{_term_notes(card)}"
    )


def _first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".") + "."


def _article_answer(task: int, card: dict[str, Any]) -> str:
    if task == 0:
        return f"**{card['name']}**: {_first_sentence(card['what'])}"
    if task == 1:
        return f"**{card['name']}**\n- {_first_sentence(card['what'])}\n- {card['why']}"
    return (
        f"**{card['name']}: what is it?**\n{card['what']}\n\n"
        f"**How does it work?**\n{card['how']}\n\n"
        f"**Can you give an example?**\n{card['example']}\n\n"
        f"**Is it true that {card['myth']}?**\n{card['truth']}"
    )


def _guide_section(card: dict[str, Any]) -> str:
    terms = "\n".join(f"- {term}: {meaning}" for term, meaning in card["terms"])
    return (
        f"## {card['name']}\n\n{card['what']} {card['how']}\n\n{card['why']}\n\n"
        f"Example: {card['example']}\n\nA common error is to think that {card['myth']}. "
        f"{card['truth']}\n\nKey terms:\n\n{terms}"
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _inner(name: str) -> str:
    """A subject's name inside a sentence."""
    keeps = name.split()[0] in {"DNA", "DNS", "HTTP"}
    return name if keeps else name[0].lower() + name[1:]


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _shuffled(items: Any, rng: random.Random) -> list[Any]:
    return rng.sample(list(items), len(items))
