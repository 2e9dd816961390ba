"""What a model loses by how it is stored: perplexity, passed programs, and speed beside them."""
