"""Evaluation of trained agents, recordings, visited states, open-loop pictures, statistics. Trains nothing."""
