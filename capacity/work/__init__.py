"""What a step moves and computes on each chip, whatever the time it takes."""
