"""Pages that a browser shows, in the look of the client's."""
