"""Settings from the environment; every missing or wrong variable is named in one error."""

from heliograph.config.bounds import Bounds
from heliograph.config.development_secrets import DevelopmentSecrets
from heliograph.config.secret import Secret
from heliograph.config.setting import Setting, default_text, settings_of, unknown_variables
from heliograph.config.settings import (
    ATTACHED_PUBLICATION,
    JUDGE_LOGIN,
    SOURCE_PUBLICATION,
    Attach,
    LogFormat,
    LogLevel,
    Reader,
    Settings,
)

__all__ = [
    "ATTACHED_PUBLICATION",
    "JUDGE_LOGIN",
    "SOURCE_PUBLICATION",
    "Attach",
    "Bounds",
    "DevelopmentSecrets",
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
