"""How one setting is described, and how fields are read from environment variables.

A settings class is a frozen dataclass whose fields are annotated with a `Setting`:
``port: Annotated[int, Setting(…)] = 8000``. The same description drives reading and the generated
reference (docs/reference/config.md).
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from heliograph.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Variables that begin like this and are no setting are worth a warning: probably misspelt.
_OWN_PREFIX: Final = "HELIOGRAPH_"

#: Characters up to which an error repeats a wrong value.
_SHOWN_CHARACTERS: Final = 24


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The description of one field of a settings class.

    Attributes:
        variable: Usual name of the environment variable.
        meaning: One or two sentences for the reference page.
        parse: Turns the variable's text into the field's value; raises ValueError whose text says
            what was expected (and never repeats the value).
        aliases: Other names, accepted because users of Supabase have them already.
        default_text: What the reference page says instead of the field's default; None where the
            default speaks for itself.
        unit: Unit of a number: ``bytes``, ``seconds``, ``per second``; empty if it has none.
        is_secret: Whether the value may never be printed.
        empty_is_value: Whether an empty variable is a value; otherwise it counts as absent.
    """

    variable: str
    meaning: str
    parse: Callable[[str], object]
    aliases: tuple[str, ...] = ()
    default_text: str | None = None
    unit: str = ""
    is_secret: bool = False
    empty_is_value: bool = False

    @property
    def variables(self) -> tuple[str, ...]:
        """Return all names of the variable, the usual one first."""
        return (self.variable, *self.aliases)


def settings_of(settings_class: "type[DataclassInstance]") -> dict[str, Setting]:
    """Return the descriptions of a settings class by field name, in the order of the fields."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    return {
        field.name: annotation
        for field in dataclasses.fields(settings_class)
        for annotation in getattr(hints[field.name], "__metadata__", ())
        if isinstance(annotation, Setting)
    }


def default_text(settings_class: "type[DataclassInstance]", name: str) -> str:
    """Return how the reference page shows the default of field `name`."""
    text = settings_of(settings_class)[name].default_text
    if text is not None:
        return text
    default = next(
        field.default for field in dataclasses.fields(settings_class) if field.name == name
    )
    if isinstance(default, Enum):
        return str(default.value)
    if isinstance(default, tuple):
        return ",".join(str(part) for part in typing.cast("tuple[object, ...]", default)) or "none"
    return (
        "none"
        if default is None
        else f"{default:g}"
        if isinstance(default, float)
        else f"{default}"
    )


def read_fields(
    settings_class: "type[DataclassInstance]", environ: Mapping[str, str], problems: dict[str, str]
) -> dict[str, Any]:
    """Read every field of a settings class whose variable is set.

    Args:
        settings_class: A dataclass whose fields are annotated with a `Setting`.
        environ: Environment variables.
        problems: Gets one line for each malformed variable, by the name of its field.

    Returns:
        Values by field name, without the fields whose variables are absent or malformed.
    """
    values: dict[str, Any] = {}
    for name, setting in settings_of(settings_class).items():
        given = {
            variable: environ[variable].strip()
            for variable in setting.variables
            if variable in environ and (environ[variable].strip() or setting.empty_is_value)
        }
        if not given:
            continue
        if len(set(given.values())) > 1:
            problems[name] = f"{' and '.join(given)}: set to different values; keep one of them"
            continue
        variable, text = next(iter(given.items()))
        try:
            values[name] = setting.parse(text)
        except ValueError as error:
            problems[name] = _problem(variable, text, setting, error)
    return values


def _problem(variable: str, text: str, setting: Setting, error: ValueError) -> str:
    # A secret pasted into the wrong variable must not be printed either: secrets are longer than
    # what is shown, and a URL with a password has an @.
    if setting.is_secret or len(text) > _SHOWN_CHARACTERS or "@" in text:
        return f"{variable}: {error}; found {len(text)} characters"
    return f"{variable}: {error}; found {text!r}"


def raise_problems(problems: Iterable[str]) -> None:
    """Raise one error that lists all problems, if there are any.

    Raises:
        ConfigurationError: If `problems` is not empty; one line for each.
    """
    lines = list(problems)
    if not lines:
        return
    count = "1 setting is" if len(lines) == 1 else f"{len(lines)} settings are"
    message = "\n".join(
        [f"{count} missing or wrong (docs/reference/config.md):", *(f"  {line}" for line in lines)]
    )
    raise ConfigurationError(message)


def unknown_variables(
    environ: Mapping[str, str], settings_classes: "Iterable[type[DataclassInstance]]"
) -> list[str]:
    """Return variables that begin with ``HELIOGRAPH_`` and are no setting; probably misspelt."""
    known = {
        variable
        for settings_class in settings_classes
        for setting in settings_of(settings_class).values()
        for variable in setting.variables
    }
    return sorted(
        variable
        for variable in environ
        if variable.startswith(_OWN_PREFIX) and variable not in known
    )
