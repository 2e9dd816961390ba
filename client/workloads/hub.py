"""The public ShareGPT set, from the Hugging Face hub."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from client.errors import UsageError

REPOSITORY = "anon8231489123/ShareGPT_Vicuna_unfiltered"
_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"


def load_hub_sharegpt() -> Sequence[dict[str, Any]]:
    """The conversations, in the order of the file.

    Raises `UsageError` when the `datasets` library is not installed or the set cannot be loaded.
    """
    try:
        # Here and not above: the library is optional and takes seconds to import.
        load_dataset = import_module("datasets").load_dataset
    # In a checkout without the library, `datasets` is our folder of sample files.
    except (ImportError, AttributeError):
        raise UsageError(
            "sharegpt-hub needs Hugging Face's datasets library: pip install 'loadstone[hub]'"
        ) from None
    try:
        return load_dataset(REPOSITORY, data_files=_FILE, split="train")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"cannot load {REPOSITORY} from the hub: {error}") from error
