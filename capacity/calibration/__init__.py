"""Efficiencies from measurements, with priors, intervals and held-out error."""
