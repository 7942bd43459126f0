"""Path B: the weight of advice in a decision, and how the actor learns it. Looks nothing up."""
