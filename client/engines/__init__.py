"""Engines measured without a server: by name, each point in a process of its own."""
