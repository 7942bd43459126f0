"""How a service is asked: connections, retries, pace. Knows no game."""
