"""Atari games of the Arcade Learning Environment as games of the learner."""
