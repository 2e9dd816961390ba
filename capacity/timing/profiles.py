"""What is believed of each software before anything is measured.

Medians are of the order that our own runs and the published pages show; spreads are standard
deviations of logarithms. They were chosen with these pages at hand, so held-out errors on the pages
are a little kinder than on a page that nobody has seen.
"""

from capacity.timing.efficiency import Prior

# What a measurement scatters around a good prediction.
NOISE = {"torch": 0.05, "jetstream": 0.12, "loadstone": 0.1}

# Kernels are launched one by one, ahead of the device: host and device hide each other's time.
TORCH = {
    "weights": Prior(0.75, 0.15),
    "quantized": Prior(0.7, 0.4),
    "cache": Prior(0.5, 0.7),
    "elementwise": Prior(0.7, 0.2),
    "compute": Prior(0.5, 0.3),
    "link": Prior(0.3, 0.0),
    "layer_s": Prior(7e-4, 0.6),
    "overlap": Prior(2.5, 0.15),
}
# bitsandbytes launches more kernels a layer, by scheme.
TORCH_LAYER_SECONDS = {
    "none": 7e-4,
    "nf4": 9e-4,
    "nf4-dq": 1.1e-3,
    "int8": 1.5e-3,
    "int8-decomp": 2.4e-3,
}

# One program a step, then the host: their times add up.
JETSTREAM = {
    "weights": Prior(0.8, 0.15),
    "quantized": Prior(0.8, 0.2),
    "cache": Prior(0.8, 0.2),
    "compute": Prior(0.5, 0.3),
    "link": Prior(0.5, 0.0),
    "step_s": Prior(1e-3, 0.7),
    "sequence_s": Prior(1e-5, 0.7),
    "request_s": Prior(2e-3, 0.7),
}

# One program a step, dispatched one ahead; tokens are read late.
LOADSTONE = {
    "weights": Prior(0.75, 0.2),
    "quantized": Prior(0.8, 0.3),
    "cache": Prior(0.5, 0.5),
    # XLA over a span of every slot: jetstream-pytorch's over the whole fits 95% on v5e (page 002).
    "cache@span": Prior(0.8, 0.3),
    "compute": Prior(0.5, 0.4),
    "link": Prior(0.4, 0.5),
    "step_s": Prior(5e-4, 1.0),
    "sequence_s": Prior(2e-5, 1.0),
    "request_s": Prior(1e-3, 1.0),
    "overlap": Prior(2.5, 0.3),
    "ridge": Prior(3.0, 0.4),
}

PROFILES = {"torch": TORCH, "jetstream": JETSTREAM, "loadstone": LOADSTONE}
