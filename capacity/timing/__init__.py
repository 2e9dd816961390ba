"""From work to seconds."""
