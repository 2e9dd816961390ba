"""Predicts what a model needs and how fast it will be, before the hardware is there. No JAX."""
