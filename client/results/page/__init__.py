"""One HTML page about runs, curves and sweeps that needs nothing but itself."""
