"""The ways to store weights, by name. Imports no JAX."""

SCHEMES = ("none", "int8")
