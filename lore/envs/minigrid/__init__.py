"""MiniGrid and BabyAI as games of the learner."""
