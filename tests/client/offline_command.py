"""The real command, with workers that know the scripted engine. A process of its own."""

import sys
from pathlib import Path

from client.engines.variant import Variant
from client.offline import main

WORKER = Path(__file__).with_name("offline_worker.py")


def worker(variant: Variant) -> tuple[str, ...]:
    """The scripted engine for whatever is asked."""
    return sys.executable, str(WORKER)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], worker))
