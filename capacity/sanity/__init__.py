"""Numbers that cannot be right."""
