"""How far off this client's own clock readings are on this host."""
