"""A server measured under every combination of some settings."""
