"""Games: one adapter per environment, and the vector of them."""
