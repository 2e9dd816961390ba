"""Data sets of Hugging Face's `datasets` library: from the hub, or from a file or folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from client.errors import UsageError

REPOSITORY = "anon8231489123/ShareGPT_Vicuna_unfiltered"
_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"
# What the library calls the reader of a file.
_READERS = {
    ".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text",
    ".arrow": "arrow",
}  # fmt: skip
# Looked for in this order when no column is named.
_PROMPT_COLUMNS = ("prompt", "messages", "conversations", "question", "instruction", "text")


@dataclass(frozen=True)
class HubSettings:
    """A data set by name or path, its split and subset, and which columns are used.

    No `prompt_column`: the first of those usual for prompts. No `answer_column`: answers do not
    give lengths.
    """

    name: str
    split: str = "train"
    subset: str | None = None
    prompt_column: str | None = None
    answer_column: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.split:
            raise UsageError("--dataset: hf:NAME or hf:NAME:SPLIT, with a name and a split")


def load_hub_sharegpt() -> Sequence[dict[str, Any]]:
    """The conversations of the public ShareGPT set, in the order of the file.

    Raises `UsageError` when the `datasets` library is not installed or the set cannot be loaded.
    """
    library = _library("sharegpt-hub")
    with _explained(REPOSITORY, library):
        return library.load_dataset(REPOSITORY, data_files=_FILE, split="train")


def load_hub(settings: HubSettings) -> Sequence[dict[str, Any]]:
    """The rows of a data set.

    A path is a file (JSON, CSV, Parquet, Arrow or text), a folder of such files, or one that the
    library's `save_to_disk` wrote; anything else is a name on the hub. Raises `UsageError` when
    the library is not installed or the set cannot be loaded.
    """
    library = _library(f"hf:{settings.name}")
    with _explained(settings.name, library):
        return _load(library, settings)


def prompt_column(settings: HubSettings, row: dict[str, Any]) -> str:
    """The column that holds the prompts. Raises `UsageError` that names those there are."""
    wanted = (settings.prompt_column,) if settings.prompt_column else _PROMPT_COLUMNS
    for name in wanted:
        if name in row:
            if settings.answer_column is not None and settings.answer_column not in row:
                raise UsageError(_lacks("--answer-column", [settings.answer_column], row))
            return name
    raise UsageError(_lacks("--prompt-column", wanted, row))


class Mapped(Sequence[Any]):
    """Rows read one at a time, as something else: large sets do not fit into memory."""

    def __init__(self, rows: Sequence[dict[str, Any]], read: Callable[[int, Any], Any]) -> None:
        self._rows = rows
        self._read = read

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._read(index, self._rows[index])

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def _load(library: Any, settings: HubSettings) -> Any:
    path, split = Path(settings.name), settings.split
    if path.is_file():
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise UsageError(
                f"{path}: a data file ends in one of {', '.join(_READERS)}; got {path.suffix!r}"
            )
        return library.load_dataset(reader, data_files=str(path), split=split)
    saved = (path / "dataset_dict.json").is_file(), (path / "state.json").is_file()
    if not any(saved):
        return library.load_dataset(settings.name, settings.subset, split=split)
    found = library.load_from_disk(str(path))
    if saved[0] and split not in found:
        raise ValueError(f"its splits are {', '.join(found)}; got {split!r}")
    return found[split] if saved[0] else found


def _library(dataset: str) -> Any:
    try:
        # Here and not above: the library is optional and takes seconds to import.
        library = import_module("datasets")
    except ImportError:
        library = None
    # In a checkout without the library, `datasets` is our folder of sample files.
    if not hasattr(library, "load_dataset"):
        raise UsageError(
            f"{dataset} needs Hugging Face's datasets library: pip install 'loadstone[hub]'"
        )
    return library


@contextmanager
def _explained(name: str, library: Any) -> Iterator[None]:
    """Says in one line why the library could not load a data set."""
    try:
        yield
    except UsageError:
        raise
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
        # The library's own error only says that there was one.
        reason = " ".join(str(error.__cause__ or error).split())
        raise UsageError(f"cannot load {name} from the hub or from disk: {reason}") from error


def _lacks(option: str, wanted: Sequence[str], row: dict[str, Any]) -> str:
    return (
        f"{option}: the data set has no column {' or '.join(wanted)}; its columns are "
        f"{', '.join(row)}"
    )
