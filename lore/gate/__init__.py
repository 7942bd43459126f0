"""The gate of path B: how much of the advice enters a decision. Looks nothing up."""
