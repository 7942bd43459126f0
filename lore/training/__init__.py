"""One training run: agent, learner, loop, acting, checkpoints, metrics. Plays no evaluation."""
