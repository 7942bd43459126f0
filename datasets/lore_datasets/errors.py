"""Every error that LoRe raises on purpose, in one tree.

::

    LoreError                  kind "error"        exit 1
    ├── UsageError             kind "usage"        exit 2   the command line or a call is wrong
    ├── BadInput               kind "bad_input"    exit 3   a file, a value or an answer is wrong
    │   ├── ConfigError        kind "config"       exit 3   field, value, range
    │   ├── NotFound           kind "not_found"    exit 3   no such dataset, version, checkpoint
    │   ├── SchemeMismatch     kind "scheme"       exit 3   another key scheme, action set, environment
    │   ├── SkillError         kind "skill"        exit 3   a skill outside the language or its limits
    │   ├── ProgramError       kind "program"      exit 3   a priority program outside the language or its limits
    │   └── AnswerError        kind "answer"       exit 3   an adviser's answer that cannot be used
    ├── ServiceError           kind "service"      exit 4   an adviser's service failed or is out of quota
    │   ├── LimitReached       kind "limit"        exit 4   ask.max_cost or ask.max_requests: nothing more was asked
    │   └── Stopped            kind "stopped"      exit 4   asking was stopped before all questions were asked
    ├── CorruptArtifact        kind "corrupt"      exit 5   digest, CRC or file format does not hold
    │   └── NewerSchema        kind "newer"        exit 5   written by a newer LoRe
    ├── Busy                   kind "busy"         exit 6   somebody else holds the lock
    ├── NoSpace                kind "no_space"     exit 7   disk or memory would not hold it
    ├── Waiting                kind "waiting"      exit 0   answers by file are still to come
    ├── Diverged               kind "diverged"     exit 8   ten non-finite updates in a row
    └── GameFailed             kind "game"         exit 9   an environment raised

A message says what happened and where; ``kept`` says what is still there; ``hint`` says what to do next.
"""

import math
from collections.abc import Mapping

__all__ = [
    "AnswerError",
    "BadInput",
    "Busy",
    "ConfigError",
    "CorruptArtifact",
    "Diverged",
    "GameFailed",
    "LimitReached",
    "LoreError",
    "NewerSchema",
    "NoSpace",
    "NotFound",
    "ProgramError",
    "SchemeMismatch",
    "ServiceError",
    "SkillError",
    "Stopped",
    "UsageError",
    "Waiting",
    "check_ranges",
    "shown",
]


def shown(text: object, limit: int = 80) -> str:
    """Foreign text made safe for a terminal or a log: ASCII escapes only, cut at ``limit``."""
    escaped = ascii(str(text))[1:-1]
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."


class LoreError(Exception):
    """Base of all errors; carries what is still there (``kept``) and what to do next (``hint``)."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, *, kept: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.kept = kept
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.kept:
            parts.append(f"kept: {self.kept}")
        if self.hint:
            parts.append(f"next: {self.hint}")
        return "; ".join(parts)

    def __reduce__(self):
        return (_rebuild, (type(self), self.message, self.kept, self.hint))


def _rebuild(cls: type, message: str, kept: str, hint: str) -> LoreError:
    return cls(message, kept=kept, hint=hint)


class UsageError(LoreError):
    """The command line or a call is wrong."""

    kind = "usage"
    exit_code = 2


class BadInput(LoreError):
    """A file, a value or an answer is wrong."""

    kind = "bad_input"
    exit_code = 3


class ConfigError(BadInput):
    """A configuration value is unknown or out of range."""

    kind = "config"

    @classmethod
    def out_of_range(cls, field: str, value: object, allowed: str) -> "ConfigError":
        """The standard message: field, value, range."""
        return cls(f"{field} = {shown(value)} is out of range", hint=f"use {allowed}")


def check_ranges(section: str, config: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """ConfigError unless each named field of a dataclass is a finite number in its (lowest, highest), and a whole one
    where the field's default is."""
    for name, (low, high) in ranges.items():
        value, default = getattr(config, name), getattr(type(config), name, None)
        kinds = (int,) if type(default) is int else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or not math.isfinite(value):
            raise ConfigError.out_of_range(f"{section}.{name}", value, f"{low:g}..{high:g}")


class NotFound(BadInput):
    """No such dataset, version or checkpoint."""

    kind = "not_found"


class SchemeMismatch(BadInput):
    """Another key scheme, action set or environment than the reader's."""

    kind = "scheme"


class SkillError(BadInput):
    """A skill outside the language or its limits."""

    kind = "skill"


class ProgramError(BadInput):
    """A priority program outside the language or its limits."""

    kind = "program"


class AnswerError(BadInput):
    """An adviser's answer that cannot be used."""

    kind = "answer"


class ServiceError(LoreError):
    """An adviser's service failed or is out of quota."""

    kind = "service"
    exit_code = 4


class LimitReached(ServiceError):
    """A limit on cost or requests ended the asking."""

    kind = "limit"


class Stopped(ServiceError):
    """The caller ended the asking."""

    kind = "stopped"


class CorruptArtifact(LoreError):
    """A digest, CRC or file format does not hold."""

    kind = "corrupt"
    exit_code = 5


class NewerSchema(CorruptArtifact):
    """Written by a newer LoRe than this one."""

    kind = "newer"


class Busy(LoreError):
    """Somebody else holds the lock."""

    kind = "busy"
    exit_code = 6


class NoSpace(LoreError):
    """Disk or memory would not hold it."""

    kind = "no_space"
    exit_code = 7


class Waiting(LoreError):
    """Answers by file are still to come; nothing is wrong."""

    kind = "waiting"
    exit_code = 0


class Diverged(LoreError):
    """Too many non-finite updates in a row."""

    kind = "diverged"
    exit_code = 8


class GameFailed(LoreError):
    """An environment raised something that is not of LoRe."""

    kind = "game"
    exit_code = 9
