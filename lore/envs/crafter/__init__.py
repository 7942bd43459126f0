"""Crafter: adapter, reproducible world, fast frames. No learning code."""
