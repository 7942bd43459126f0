"""Stored advice: look-up by key, program and model, and how a model is distilled from rows. Decides nothing."""
