"""Chips, how they are joined, and what is measured of this host."""
