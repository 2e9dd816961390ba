"""How to talk to a system under test."""
