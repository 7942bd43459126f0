"""Games: one adapter per environment, and the vector of them. No learning code."""

from lore.envs.base import Env, Step, make_env, make_env_fns

__all__ = ["Env", "Step", "make_env", "make_env_fns"]
