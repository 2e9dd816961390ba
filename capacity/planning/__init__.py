"""From traffic and a service level to a ranked list of fleets."""
