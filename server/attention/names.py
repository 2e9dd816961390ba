"""The implementations of attention, by name. Imports no JAX."""

IMPLEMENTATIONS = ("flash", "reference")
