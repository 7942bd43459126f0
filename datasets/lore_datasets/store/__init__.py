"""The versioned store: repositories, commits, readers, writers, manifests. No game, no learner."""
