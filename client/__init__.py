"""Replays a workload against a server and reports what came back, and when."""
