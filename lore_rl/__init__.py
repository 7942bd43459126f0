"""LoRe from Python: ``collect``, ``advise``, ``play``, ``train``, ``evaluate``, ``report`` (:mod:`flows.api`)."""

from flows.api import Evaluation, Trained, Worth, advise, collect, evaluate, open_advice, play, report, train

__all__ = ["Evaluation", "Trained", "Worth", "advise", "collect", "evaluate", "open_advice", "play", "report", "train"]
