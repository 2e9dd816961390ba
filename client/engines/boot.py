"""Starts the worker in any environment: `python boot.py ASK RESULT`.

Only the package `client` is taken from here, so that nothing of our environment stands in the way
of what the other one has.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def main() -> int:
    """Makes `client` importable and runs the worker."""
    # The folder of this file, whose modules would hide others of their names.
    sys.path.pop(0)
    spec = importlib.util.spec_from_file_location(
        "client", PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec is not None and spec.loader is not None, PACKAGE
    package = importlib.util.module_from_spec(spec)
    sys.modules["client"] = package
    spec.loader.exec_module(package)
    from client.engines.worker import main as work

    return work(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
