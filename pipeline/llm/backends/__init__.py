"""Who is asked: services, local models, the rule book, controls. Keeps nothing."""
