"""How many problems a model solves: it writes, the judge examines, pass@k counts."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from client.errors import UsageError
from client.grading.asking import Question, Text, ask_all
from client.grading.completion import Completion, Log, Try
from client.grading.form import FORMS, STOPS, Continuation
from client.grading.passes import mean_pass_at
from client.grading.problems import Problem
from client.judging.judge import Judge
from client.judging.verdict import Verdict
from client.targets.target import Target
from tokenization import Tokenizer

# Told how much there is to do, and called for each that is done.
Count = Callable[[], None]


@dataclass(frozen=True)
class HumanEvalSettings:
    """`form`: one of FORMS. `samples` a problem. `ks`: which pass@k. `max_tokens` of an answer.

    Temperature 0 is greedy; top_k 0 and top_p 1 are no limit. `first`: only so many problems.
    """

    form: str = "continuation"
    samples: int = 1
    ks: tuple[int, ...] = (1,)
    max_tokens: int = 384
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    first: int | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(f"--prompt-form: {', '.join(FORMS)}; got {self.form!r}")
        for option, value in (
            ("--samples", self.samples),
            ("--max-new-tokens", self.max_tokens),
            ("--first-problems", 1 if self.first is None else self.first),
        ):
            if value < 1:
                raise UsageError(f"{option}: 1 or more; got {value}")
        for k in self.ks:
            if not 1 <= k <= self.samples:
                raise UsageError(
                    f"--pass-at {k}: from 1 to --samples, which is {self.samples}; ask for more "
                    "samples"
                )
        if self.samples > 1 and self.temperature == 0:
            raise UsageError(
                f"--samples {self.samples} of a greedy model are all the same; give "
                "--temperature, such as 0.8"
            )

    def describe(self) -> dict[str, Any]:
        """For a record, with where completions are cut."""
        stops = list(STOPS) if isinstance(FORMS[self.form], Continuation) else None
        return asdict(self) | {"ks": list(self.ks), "stops": stops}


def tries(problems: Sequence[Problem], settings: HumanEvalSettings) -> list[Try]:
    """Every try of every problem, in order."""
    return [Try(problem.id, sample) for problem in problems for sample in range(settings.samples)]


async def write(
    target: Target,
    problems: Sequence[Problem],
    settings: HumanEvalSettings,
    tokenizer: Tokenizer,
    at_once: int,
    log: Log,
    count: Count,
) -> None:
    """Asks for what the log does not hold yet and adds it. The target is open.

    Raises `NotReadyError` for a request that fails.
    """
    form, by_id = FORMS[settings.form], {problem.id: problem for problem in problems}

    def question(of: Try) -> Question:
        problem = by_id[of.task_id]
        prompt = replace(
            form.prompt(problem, tokenizer),
            id=f"{of.task_id}, try {of.sample}",
            max_tokens=settings.max_tokens,
            seed=_seed(settings.seed, of),
        )

        def done(said: Text) -> None:
            text = form.completion(said.text)
            log.add(Completion(of.task_id, of.sample, text, said.finish or "cut", said.tokens))
            count()

        return Question(prompt, form.is_over, done)

    there = log.completions()
    missing = [of for of in tries(problems, settings) if of not in there]
    with log:
        await ask_all(target, map(question, missing), at_once, tokenizer)


def examine(
    judge: Judge,
    problems: Sequence[Problem],
    completions: Iterable[Completion],
    workers: int,
    done: Callable[[Completion, Verdict], None],
) -> None:
    """Judges completions, several at once; `done` is called in this thread, in their order.

    Raises `JailError` where there can be no verdict. After an interrupt nothing is left running.
    """
    by_id = {problem.id: problem for problem in problems}

    def verdict(completion: Completion) -> tuple[Completion, Verdict]:
        problem = by_id[completion.task_id]
        return completion, judge.judge(problem.program(completion.text), problem.task)

    pool = ThreadPoolExecutor(workers)
    try:
        for result in pool.map(verdict, completions):
            done(*result)
    finally:
        pool.shutdown(cancel_futures=True)


def judge_missing(
    judge: Judge,
    problems: Sequence[Problem],
    settings: HumanEvalSettings,
    workers: int,
    log: Log,
    count: Count,
) -> None:
    """Judges what the log holds no verdict on, and adds it."""
    completions, known = log.completions(), log.verdicts()
    wanted = [of for of in tries(problems, settings) if of not in known]
    with log:

        def done(completion: Completion, verdict: Verdict) -> None:
            log.add((completion.of, verdict))
            count()

        examine(judge, problems, [completions[of] for of in wanted], workers, done)


def figures(problems: Sequence[Problem], settings: HumanEvalSettings, log: Log) -> dict[str, Any]:
    """What a record holds of it. Everything is in the log."""
    wanted = tries(problems, settings)
    completions, verdicts = log.completions(), log.verdicts()
    passed = Counter(of.task_id for of in wanted if verdicts[of].passed)
    counts = [passed[problem.id] for problem in problems]
    made = [completions[of] for of in wanted]
    return {
        "problems": len(problems),
        "problems_sha256": _digest(problems),
        "pass_at": {str(k): mean_pass_at(k, settings.samples, counts) for k in settings.ks},
        "passed": sum(counts),
        "tries": len(wanted),
        "solved": sum(count > 0 for count in counts),
        "outcomes": dict(Counter(verdicts[of].outcome.value for of in wanted)),
        "finish": dict(Counter(str(each.finish) for each in made)),
        "generated_tokens": sum(each.tokens for each in made),
    }


def _digest(problems: Iterable[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(repr(problem).encode())
    return digest.hexdigest()


def _seed(seed: int, of: Try) -> int:
    """Of one try, whatever is asked before it."""
    digest = hashlib.sha256(f"{seed} {of.task_id} {of.sample}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def controls(
    judge: Judge, problems: Sequence[Problem], workers: int, count: Count
) -> list[tuple[str, int, int]]:
    """What programs are, how many of them passed, and how many should have: every problem's own
    solution, and no empty one."""
    kinds = {
        "own solutions": ([problem.solution for problem in problems], len(problems)),
        "empty programs": (["" for _ in problems], 0),
    }
    found = []
    for name, (texts, wanted) in kinds.items():
        completions = [
            Completion(problem.id, 0, text, None, 0)
            for problem, text in zip(problems, texts, strict=True)
        ]
        verdicts: list[Verdict] = []

        def done(_: Completion, verdict: Verdict, into: list[Verdict] = verdicts) -> None:
            into.append(verdict)
            count()

        examine(judge, problems, completions, workers, done)
        found.append((name, sum(verdict.passed for verdict in verdicts), wanted))
    return found
