"""When requests are sent."""
