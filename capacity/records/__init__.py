"""Our own measurements, as far as calibration needs them."""
