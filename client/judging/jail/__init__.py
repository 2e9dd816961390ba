"""What runs inside a jailed process. Standard library only; `start.py` is where it begins."""
