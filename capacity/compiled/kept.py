"""Answers and compiled programs that are kept between runs."""

import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.compiled.target import Target

_ROOT = Path(__file__).parents[2]
# What programs are made of, and what reads them.
_READERS = ("answer", "ask", "hlo", "target", "traffic", "worker")
_SOURCES = ("server", *(f"capacity/compiled/{name}.py" for name in _READERS))


@dataclass(frozen=True)
class Kept:
    """JSON files in a folder; of programs the compiler's text beside them (.hlo.gz), to look at.

    A file is written whole or not at all, so several may share the folder.
    """

    folder: Path

    def key(self, text: str, target: Target, versions: Mapping[str, str]) -> str:
        """Names a program: what it is, for what, by which compiler."""
        what = json.dumps([target.as_dict(), dict(versions)], sort_keys=True)
        return hashlib.sha256((what + text).encode()).hexdigest()[:32]

    def load(self, key: str) -> dict[str, Any] | None:
        """What was kept under this name; None when there is nothing, or nothing readable."""
        facts, text = self._paths(key)
        try:
            found = json.loads(facts.read_text(encoding="utf-8"))
            if "message" not in found:
                found["text"] = gzip.decompress(text.read_bytes()).decode()
        except (OSError, ValueError, EOFError):
            return None
        return found

    def save(self, key: str, found: Mapping[str, Any]) -> None:
        """Keeps it."""
        facts, text = self._paths(key)
        rest = dict(found)
        if "text" in rest:
            _write(text, gzip.compress(rest.pop("text").encode(), 6))
        _write(facts, json.dumps(rest).encode())

    def load_answer(self, key: str) -> dict[str, Any] | None:
        """Of a whole ask."""
        try:
            return json.loads(self._answer(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def save_answer(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keeps it."""
        _write(self._answer(key), json.dumps(answer, indent=1).encode())

    def _answer(self, key: str) -> Path:
        return self.folder / "answers" / f"{key}.json"

    def _paths(self, key: str) -> tuple[Path, Path]:
        programs = self.folder / "programs"
        return programs / f"{key}.json", programs / f"{key}.hlo.gz"


def fingerprint() -> str:
    """Of the sources that programs are made of: any change asks the compiler anew."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        place = _ROOT / source
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in (".py", ".c", ".h", ".toml"):
                digest.update(str(path.relative_to(_ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
