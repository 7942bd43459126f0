"""Every compiled form of the learner's networks. Computes what :mod:`lore.dreamer` computes; no algorithm of its
own."""
