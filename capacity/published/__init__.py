"""What others published, as data, and what our model says of it."""
