"""The implementations of attention, by name, and when chunks are taken in blocks. No JAX."""

IMPLEMENTATIONS = ("flash", "reference")
# Float32 scores of a chunk of prompt that are made all at once, per device; beyond that chunks
# attend to so many keys at a time.
MOST_SCORES = 256 * 2**20
KEYS_AT_ONCE = 512
