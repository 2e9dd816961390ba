"""One file a command: `add(parser)` declares its options, `run(given)` does it.

Whoever adds a command adds a file here and a line in `capacity/__main__.py`.
"""
