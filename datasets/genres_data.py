"""Conversations about numbers and records, whose answers are computed from what was asked."""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

Turns = list[str]
Material = dict[str, Any]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri")
_MONTHS = ("May", "June", "July", "August", "September")
_FAULTS = (
    ("payments", "timeout after 30000 ms calling bank gateway"),
    ("search", "index shard 3 not available, retrying"),
    ("mailer", "connection refused by smtp relay"),
    ("auth", "token signature invalid"),
    ("images", "out of memory while resizing upload"),
)


def sales(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A table of units by product and region."""
    names, regions = material["table"]["products"], material["table"]["regions"]
    for rows in (5, 6, 8, 9, 11, 12):
        table = {
            name: [rng.randrange(12, 400) for _ in regions] for name in rng.sample(names, rows)
        }
        text = _markdown(["product", *regions], [[name, *row] for name, row in table.items()])
        totals = [sum(column) for column in zip(*table.values(), strict=True)]
        ranked = sorted(table, key=lambda name: -sum(table[name]))
        best, weak = ranked[0], ranked[-1]
        top = regions[totals.index(max(totals))]
        yield [
            "Here are last quarter's sales in units. Which region did best, and which products "
            f"were strongest and weakest overall?\n\n{text}",
            "Totals by region:\n\n"
            + "\n".join(f"- {name}: {total:,}" for name, total in zip(regions, totals, strict=True))
            + "\n\nProducts from strongest to weakest:\n\n"
            + "\n".join(
                f"{i}. {name}: {sum(table[name]):,}" for i, name in enumerate(ranked, start=1)
            )
            + f"\n\n{top} did best. Over all regions the strongest product was the {best} with "
            f"{sum(table[best]):,} units and the weakest the {weak} with {sum(table[weak]):,}.",
            f"What is {top}'s share of the whole?",
            f"{max(totals):,} of {sum(totals):,} units, which is "
            f"{100 * max(totals) / sum(totals):.1f} percent.",
        ]


def hours(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A sheet of hours worked."""
    for count in (6, 8, 10, 12, 14, 16):
        people = rng.sample(material["table"]["employees"], count)
        sheet = {
            name: [rng.choice((0, 4, 6, 7, 7.5, 8, 8, 8.5, 9, 10)) for _ in _DAYS]
            for name in people
        }
        text = "\n".join(
            f"{name}: " + ", ".join(f"{day} {hour:g}" for day, hour in zip(_DAYS, row, strict=True))
            for name, row in sheet.items()
        )
        over = {name: sum(row) for name, row in sheet.items() if sum(row) > 38.5}
        answer = "\n".join(
            f"- {name}: {total:g} hours, {total - 38.5:g} over" for name, total in over.items()
        )
        total = sum(map(sum, sheet.values()))
        least = min(sheet, key=lambda name: sum(sheet[name]))
        yield [
            "Who worked more than 38.5 hours this week, and what is the total for the team?\n\n"
            + text,
            "Hours per person:\n\n"
            + _markdown(["name", "hours"], [[name, f"{sum(row):g}"] for name, row in sheet.items()])
            + (f"\n\nThese are over:\n\n{answer}" if over else "\n\nNobody is over 38.5 hours.")
            + f"\n\nThe team worked {total:g} hours together.",
            "Thanks. Who worked least?",
            f"{least} did, with {sum(sheet[least]):g} hours.",
        ]


def harvest(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A table to turn into JSON, which makes a long answer."""
    for rows in (7, 8, 8, 9, 10, 10):
        plants = rng.sample(material["table"]["plants"], rows)
        table = [[name, *(round(rng.uniform(0, 9), 1) for _ in _MONTHS)] for name in plants]
        text = "\n".join(",".join(map(str, row)) for row in (["plant", *_MONTHS], *table))
        content = [
            {
                "plant": name,
                "kilograms": dict(zip(_MONTHS, row, strict=True)),
                "total": round(sum(row), 1),
            }
            for name, *row in table
        ]
        yield [
            "Convert this CSV of our garden's harvest to JSON. One object per plant, the months "
            f'nested under "kilograms", and add a total.\n\n{text}',
            "```json\n" + json.dumps(content, indent=2) + "\n```",
        ]


def log(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Lines of a server's log."""
    for lines in (9, 12, 14, 16, 18, 20, 22, 25, 28, 32):
        second, entries = rng.randrange(20_000, 60_000), []
        faults: Counter[tuple[str, str]] = Counter()
        last: dict[str, str] = {}
        waits: list[int] = []
        for _ in range(lines):
            second += rng.randrange(1, 90)
            clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
            if rng.random() < 0.45:
                service, message = rng.choice(_FAULTS)
                faults[service, message] += 1
                last[service] = clock
                entries.append(f"{clock} ERROR {service}: {message}")
            else:
                path = rng.choice(("/", "/login", "/cart", "/search?q=lamp", "/api/orders"))
                waits.append(rng.randrange(8, 420))
                entries.append(f"{clock} INFO web: GET {path} 200 {waits[-1]} ms")
        rows = [
            [service, count, last[service], message]
            for (service, message), count in faults.most_common()
        ]
        listed = _markdown(["service", "times", "last seen", "message"], rows)
        worst = max(faults, key=lambda fault: faults[fault])[0]
        yield [
            "Can you tell me what is going wrong here? Group the errors and say where to look "
            "first.\n\n```\n" + "\n".join(entries) + "\n```",
            f"There are {faults.total()} errors in {lines} lines:\n\n{listed}\n\nI would look at "
            f"{worst} first, since it fails most often. All page requests were answered with 200, "
            "so visitors may not have noticed yet.",
            "and how slow are the pages?",
            f"The slowest of the {len(waits)} page requests took {max(waits)} ms, and the average "
            f"is {sum(waits) / len(waits):.0f} ms. {sum(wait > 300 for wait in waits)} of them "
            "were over 300 ms.",
        ]


def meeting(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A transcript to draw the tasks from."""
    for number, entry in enumerate(material["meeting"] * 2):
        chair, *others = entry["people"]
        lines, tasks = [f"{chair}: Thanks for coming. We talk about {entry['project']}."], []
        points = entry["points"] if number < len(material["meeting"]) else entry["points"][1:4]
        for point, idea, task, due in points:
            one, two = rng.sample(others, 2)
            lines += [
                f"{one}: {point}",
                f"{two}: {idea}",
                f"{chair}: {rng.choice(('Good.', 'Fine with me.', 'Agreed.'))} "
                f"{two}, will you {task}? By {due}, please.",
                f"{two}: {rng.choice(('Will do.', 'Yes.', 'I will.', 'Noted.'))}",
            ]
            tasks.append((two, task, due))
        text = "\n".join(lines)
        if number % 2:
            answer = _markdown(["who", "what", "by when"], [list(task) for task in tasks])
            busiest, count = Counter(who for who, _, _ in tasks).most_common(1)[0]
            yield [
                "Make a table of who does what by when, and tell me who has the most to do.\n\n"
                f"{text}",
                f"{answer}\n\n{busiest} has the most, with {count} of {len(tasks)} tasks. In case "
                f"you need it for the minutes, the talk about {entry['project']} turned on these "
                "points:\n\n" + "\n".join(f"- {point[0]}" for point in points),
            ]
        else:
            listed = "\n".join(f"- {who} will {what} by {when}." for who, what, when in tasks)
            yield [
                f"I missed this meeting. What was decided, and who has to do what?\n\n{text}",
                f"The meeting was about {entry['project']}. These points came up:\n\n"
                + "\n".join(f"- {point[0]}" for point in points)
                + f"\n\nWho has to do what:\n\n{listed}",
            ]


def review(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Customers' opinions to sort."""
    for number, entry in enumerate(material["review"] * 2):
        lines = rng.sample(entry["lines"], len(entry["lines"]) if number < 4 else 5)
        text = "\n".join(f"{i}. {line}" for i, (_, line) in enumerate(lines, start=1))
        kinds = {"positive": {4, 5}, "mixed": {3}, "negative": {1, 2}}
        sorted_lines = {
            kind: [str(i) for i, (stars, _) in enumerate(lines, start=1) if stars in range_]
            for kind, range_ in kinds.items()
        }
        answer = "\n".join(
            f"- {kind}: {', '.join(ids) or 'none'}" for kind, ids in sorted_lines.items()
        )
        words = {5: "delighted", 4: "pleased", 3: "in two minds", 2: "disappointed", 1: "angry"}
        rows = [
            [i, words[stars], " ".join(line.split()[:5]) + " ..."]
            for i, (stars, line) in enumerate(lines, start=1)
        ]
        tones = _markdown(["review", "tone", "begins"], rows)
        good = next((line for stars, line in lines if stars == 5), lines[0][1])
        bad = min(lines)[1]
        yield [
            f"Sort these reviews of {entry['product']} into positive, mixed and negative, and "
            f"quote one that is typical of each end.\n\n{text}",
            f'{answer}\n\n{tones}\n\nTypical praise: "{good}"\n\nTypical complaint: "{bad}"',
        ]


def recipe(material: Material, rng: random.Random) -> Iterator[Turns]:
    """A dish for another number of people."""
    for dish in material["dish"]:
        people = rng.choice([n for n in (3, 5, 8, 10) if n != dish["serves"]])
        steps = "\n".join(f"{i}. {step}" for i, step in enumerate(dish["steps"], start=1))
        given = "\n".join(_amount(what, amount, unit) for what, amount, unit in dish["ingredients"])
        more = (
            "The steps stay the same, but a larger amount takes longer to heat, so go by its look."
        )
        hint = more if people > dish["serves"] else "Use a smaller pan and check early."
        scaled = "\n".join(
            "- " + _amount(what, amount * people / dish["serves"], unit)
            for what, amount, unit in dish["ingredients"]
        )
        yield [
            f"My recipe for {dish['name']} serves {dish['serves']}, but we are {people}. Please "
            f"convert it.\n\n{given}\n\n{steps}",
            f"For {people} people you need:\n\n{scaled}\n\n{steps}\n\n{hint}",
        ]


def cook(material: Material, rng: random.Random) -> Iterator[Turns]:
    """How to make a dish."""
    for dish in material["dish"]:
        needed = "\n".join(
            "- " + _amount(what, amount, unit) for what, amount, unit in dish["ingredients"]
        )
        steps = "\n".join(f"{i}. {step}" for i, step in enumerate(dish["steps"], start=1))
        yield [
            f"how do i make {dish['name']} for {dish['serves']}",
            f"You need:\n\n{needed}\n\n{steps}",
        ]


def arithmetic(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Sums from everyday life, with the way to the answer."""
    for _ in range(3):
        price, percent = rng.randrange(40, 400, 5), rng.choice((15, 20, 25, 30, 35))
        off = price * percent / 100
        yield [
            f"A jacket costs {price} and is {percent}% off. What do I pay, and what if there "
            "is a further 10% off the reduced price?",
            f"{percent}% of {price} is {off:g}, so you pay {price - off:g}. Another 10% takes off "
            f"{(price - off) / 10:g}, which leaves {(price - off) * 0.9:g}. Together the two steps "
            f"save less than {percent + 10}% at once would.",
        ]
        speed, minutes = rng.randrange(60, 121, 6), rng.randrange(20, 200, 10)
        yield [
            f"How far do I get in {minutes} minutes at {speed} km/h?",
            f"{speed} km/h is {speed / 60:g} km a minute. In {minutes} minutes that makes "
            f"{speed / 60:g} x {minutes} = {speed * minutes / 60:g} km.",
        ]
        width, length = (rng.randrange(20, 61) / 10 for _ in range(2))
        walls = 2 * (width + length) * 2.5
        yield [
            f"My room is {width:g} by {length:g} metres and 2.5 metres high. How much paint do I "
            "need for two coats on the walls, if a litre covers 8 square metres?",
            f"The walls measure 2 x ({width:g} + {length:g}) x 2.5 = {walls:.1f} square metres. "
            f"Two coats are {2 * walls:.1f} square metres, and divided by 8 that is "
            f"{walls / 4:.1f} litres. Doors and windows reduce it, so {math.ceil(walls / 4)} "
            "litres are certainly enough.",
        ]
        total, people, tip = rng.randrange(60, 240), rng.randrange(3, 8), rng.choice((10, 12, 15))
        yield [
            f"split a bill of {total} between {people} people with {tip}% tip",
            f"With the tip it is {total} x {1 + tip / 100:g} = {total * (1 + tip / 100):.2f}. "
            f"Divided by {people} that is {total * (1 + tip / 100) / people:.2f} each.",
        ]


def towns(material: Material, rng: random.Random) -> Iterator[Turns]:
    """Facts to put in order."""
    for count in (5, 7, 9, 12):
        names = rng.sample(material["table"]["towns"], count)
        facts = {name: (rng.randrange(2, 90) * 1000, rng.randrange(5, 140)) for name in names}
        text = " ".join(
            f"{name} has {people:,} inhabitants and lies {far} km from the coast."
            for name, (people, far) in facts.items()
        )
        largest = max(facts, key=lambda name: facts[name][0])
        ranked = sorted(facts.items(), key=lambda item: item[1][1])
        table = _markdown(
            ["town", "km to the coast", "inhabitants"], [[n, f, f"{p:,}"] for n, (p, f) in ranked]
        )
        yield [
            f"Put this in a table, nearest to the coast first: {text}",
            table,
            "Which of them is the largest, and how many people live in all of them together?",
            f"{largest}, with {facts[largest][0]:,} inhabitants. Together they have "
            f"{sum(people for people, _ in facts.values()):,}.",
        ]


def _markdown(head: list[Any], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _amount(what: str, amount: float, unit: str) -> str:
    # Whole or half onions, quarter spoons, grams to the next ten.
    step = 10 if amount >= 20 else 0.25 if unit else 0.5
    value = f"{math.ceil(amount / step) * step:g}"
    if not unit and amount <= 1:
        what = what.removesuffix("s")
    return " ".join(part for part in (value, unit, what) if part)
