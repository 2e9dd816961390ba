"""Where tests keep compiled programs and the CPU kernel, as the server does."""

from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache"
