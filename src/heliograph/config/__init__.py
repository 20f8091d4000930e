"""Settings from the environment; every missing or wrong variable is named in one error."""

from heliograph.config.bounds import Bounds
from heliograph.config.secret import Secret
from heliograph.config.setting import Setting, default_text, settings_of, unknown_variables
from heliograph.config.settings import (
    JUDGE_ROLE,
    Attach,
    DeleteVisibility,
    DevelopmentSecrets,
    LeaveEvents,
    LogFormat,
    LogLevel,
    Reader,
    Settings,
)

__all__ = [
    "JUDGE_ROLE",
    "Attach",
    "Bounds",
    "DeleteVisibility",
    "DevelopmentSecrets",
    "LeaveEvents",
    "LogFormat",
    "LogLevel",
    "Reader",
    "Secret",
    "Setting",
    "Settings",
    "default_text",
    "settings_of",
    "unknown_variables",
]
