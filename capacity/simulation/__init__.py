"""Replicas of our server behind a router, event by event, driven by the server's own policy."""
