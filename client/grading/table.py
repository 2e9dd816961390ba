"""The table of a quality run, in Markdown."""

from collections.abc import Sequence
from typing import Any

from client.grading.record import QualityRecord

_VERSIONS = ("python", "loadstone", "jax", "numpy")


def render(records: Sequence[QualityRecord]) -> str:
    """Header, table, and under it why rows are not complete. Definitions: docs/quality.md."""
    ks = sorted(
        {int(k) for record in records for k in _part(record, "humaneval").get("pass_at", {})}
    )
    columns = [
        "model", "weights", "KV cache", "bytes of weights", "perplexity", "over none",
        *(f"pass@{k}" for k in ks), f"decode tokens/s{_batch(records)}",
    ]  # fmt: skip
    lines = [*_header(records), "", _row(columns), _row(["---"] * len(columns))]
    plain = next((record for record in records if record.row.plain), None)
    lines += [_row(_cells(record, plain, ks)) for record in records]
    reasons = [
        f"- {record.row.name}: {_plain(record.failed)}" for record in records if record.failed
    ]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def _header(records: Sequence[QualityRecord]) -> list[str]:
    first = records[0]
    host = first.host
    versions = " ".join(f"{name} {host[name]}" for name in _VERSIONS if host.get(name))
    days = sorted({f"{each.date[:4]}-{each.date[4:6]}-{each.date[6:8]}" for each in records})
    return [
        f"# Quality of {_name(first)}",
        "",
        *(f"- Command: `{command}`" for command in dict.fromkeys(each.command for each in records)),
        f"- Date: {' to '.join(dict.fromkeys((days[0], days[-1])))}",
        f"- Machine: {host['cpu']}, {host['cores']} cores",
        f"- Versions: {versions}",
        *_explain(records),
    ]


def _explain(records: Sequence[QualityRecord]) -> list[str]:
    lines = []
    text = _first(records, "perplexity")
    if text:
        lines.append(
            f"- Perplexity: {_plain(str(text['text']))}, {text['tokens']:,} tokens, windows of "
            f"{text['window']:,} every {text['stride']:,}, {text['scored_tokens']:,} tokens scored"
        )
    programs = _first(records, "humaneval")
    if programs:
        asked = next(r.settings["humaneval"] for r in records if "humaneval" in r.parts)
        drawn = (
            f"temperature {asked['temperature']:g}, top-p {asked['top_p']:g}, top-k "
            f"{asked['top_k']}, seed {asked['seed']}, {asked['samples']} samples"
        )
        lines.append(
            f"- Programs: {_plain(asked['problem_set'])}, {programs['problems']} problems, asked "
            f"as {asked['form']}, {drawn if asked['temperature'] else 'greedy'}, at most "
            f"{asked['max_tokens']} new tokens"
        )
        lines.append(f"- Programs were contained by: {', '.join(programs['contained_by'])}")
    rate = _first(records, "speed")
    if rate:
        lines.append(
            f"- Speed: {rate['batch']} requests at once, prompts of {rate['prompt']} tokens, "
            f"{rate['tokens']} new; median (lowest-highest) of {len(rate['rounds'])} rounds"
        )
    return lines


def _cells(record: QualityRecord, plain: QualityRecord | None, ks: Sequence[int]) -> list[str]:
    row, engine = record.row, record.engine or {}
    text, programs = _part(record, "perplexity"), _part(record, "humaneval")
    return [
        _name(record),
        row.weights,
        "-" if row.served else row.kv_cache,
        f"{engine['weight_bytes']:,}" if engine else "-",
        f"{text['perplexity']:.3f}" if text else "-",
        _over(text, _part(plain, "perplexity") if plain else {}),
        *(_passed(programs, k) for k in ks),
        _speed(record),
    ]


def _over(text: dict[str, Any], base: dict[str, Any]) -> str:
    if not text or not base:
        return "-"
    return f"{100 * (text['perplexity'] / base['perplexity'] - 1):+.2f}%"


def _passed(programs: dict[str, Any], k: int) -> str:
    share = programs.get("pass_at", {}).get(str(k))
    if share is None:
        return "-"
    whole = programs["tries"] == programs["problems"]
    return f"{share:.1%}" + (f" ({programs['passed']}/{programs['tries']})" if whole else "")


def _name(record: QualityRecord) -> str:
    """As the engine calls it; a path says where it is, not what."""
    return _plain((record.engine or {}).get("model") or record.model)


def _speed(record: QualityRecord) -> str:
    rate = _part(record, "speed")
    if not rate:
        return "-"
    spread = f"({rate['lowest']:,.0f}-{rate['highest']:,.0f})"
    return f"{rate['decode_tokens_per_second']:,.0f} {spread}"


def _batch(records: Sequence[QualityRecord]) -> str:
    rate = _first(records, "speed")
    return f" (batch {rate['batch']})" if rate else ""


def _first(records: Sequence[QualityRecord], part: str) -> dict[str, Any]:
    return next((_part(record, part) for record in records if part in record.parts), {})


def _part(record: QualityRecord, name: str) -> dict[str, Any]:
    return record.parts.get(name, {})


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _plain(text: str | None) -> str:
    return (text or "").replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
