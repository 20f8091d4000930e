"""One ``postgres_changes`` entry of a join, read and checked without looking at the database.

Accepted shapes (all values strings): schema and table, with or without filter; schema alone (every
table); table alone (schema ``public``). ``*`` is a wildcard for either name.
A filter of null is none. Source: protocol §10.4, §10.6. The texts are what clients of Supabase
Realtime get.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from heliograph import limits
from heliograph.core.matching.filter_parser import FilterTerm, is_storable, parse_filter
from heliograph.core.matching.inspected import inspected, shortened
from heliograph.errors import RefusalReason, SubscriptionRefusedError

#: Matches every schema or table, or every event.
WILDCARD: Final = "*"

_EVENTS: Final = frozenset({"INSERT", "UPDATE", "DELETE"})
_TOKEN_KEYS: Final = frozenset({"user_token", "auth_token"})


@dataclass(frozen=True, slots=True)
class BindingParameters:
    """What one entry asks for.

    Attributes:
        event: ``INSERT``, ``UPDATE``, ``DELETE`` or ``*``.
        schema: Schema name, compared exactly, or ``*``.
        table: Table name, compared exactly, or ``*``.
        filter_terms: Conditions joined by AND.
        select: Columns wanted, in the client's order, without repetition; None means all.
    """

    event: str
    schema: str
    table: str
    filter_terms: tuple[FilterTerm, ...] = ()
    select: tuple[str, ...] | None = None

    @property
    def is_wildcard(self) -> bool:
        """Whether it may stand for several tables."""
        return WILDCARD in (self.schema, self.table)

    def may_name(self, schema: str, table: str) -> bool:
        """Tell whether it stands for a table of that name."""
        return self.schema in {WILDCARD, schema} and self.table in {WILDCARD, table}


def parse_binding_parameters(raw: Mapping[str, object]) -> BindingParameters:
    """Read one entry.

    Args:
        raw: The decoded JSON object, as the client sent it.

    Raises:
        SubscriptionRefusedError: With the protocol's text, if it has no accepted shape, its filter
            breaks the grammar, or its ``select`` is not a list or stands with a wildcard.
    """
    select = _select(raw.get("select"))
    schema, table, filter_text = _names(raw)
    parameters = BindingParameters(
        event=_event(raw.get("event")),
        schema=schema,
        table=table,
        filter_terms=() if filter_text is None else parse_filter(filter_text),
        select=select,
    )
    if select is not None and parameters.is_wildcard:
        message = (
            "Column selection is not supported for wildcard subscriptions. "
            "Provide an explicit schema and table name."
        )
        raise SubscriptionRefusedError(message)
    if not (is_storable(schema) and is_storable(table)):
        raise not_enabled(parameters)
    return parameters


def not_enabled(parameters: BindingParameters) -> SubscriptionRefusedError:
    """Return the refusal for names that stand for no published table."""
    return _refusal(
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled "
        f"for the given connect parameters: [{described(parameters)}]",
        "not_enabled",
    )


def raised(parameters: BindingParameters, exception: str) -> SubscriptionRefusedError:
    """Return the refusal for parameters that the table or PostgreSQL does not accept.

    Args:
        parameters: What was asked for; repeated in the text.
        exception: For example ``ERROR P0001 (raise_exception) invalid column for filter x``;
            cut if it is long.
    """
    return _refusal(
        "Unable to subscribe to changes with given parameters. An exception happened so please "
        f"check your connect parameters: [{described(parameters)}]. "
        f"Exception: {shortened(exception)}",
        "not_accepted",
    )


def raised_by_check(parameters: BindingParameters, text: str) -> SubscriptionRefusedError:
    """Return the refusal for parameters that do not fit the table, as one of our own checks.

    Args:
        parameters: What was asked for.
        text: For example ``invalid column for filter x``.
    """
    return raised(parameters, f"ERROR P0001 (raise_exception) {text}")


def described(parameters: BindingParameters) -> str:
    """Write the parameters as the reference's texts do, without brackets."""
    filters = [
        (term.column, term.operator.value, term.value, term.negated)
        for term in parameters.filter_terms
    ]
    select = None if parameters.select is None else list(parameters.select)
    return (
        f"event: {parameters.event}, schema: {shortened(parameters.schema)}, "
        f"table: {shortened(parameters.table)}, filters: {inspected(filters)}, "
        f"select: {inspected(select)}"
    )


def _event(raw: object) -> str:
    if not isinstance(raw, str):
        return WILDCARD
    event = raw.upper()
    return event if event in _EVENTS else WILDCARD


def _select(raw: object) -> tuple[str, ...] | None:
    if isinstance(raw, str):
        message = (
            "Error parsing `select` params: expected a list of column name strings, "
            'e.g. select: ["col1", "col2"]'
        )
        raise SubscriptionRefusedError(message)
    if not isinstance(raw, list):
        return None
    entries = cast("list[object]", raw)
    if len(entries) > limits.SELECT_COLUMNS_MAX:
        message = (
            "Error parsing `select` params: expected at most "
            f"{limits.SELECT_COLUMNS_MAX} column names"
        )
        raise SubscriptionRefusedError(message)
    names = dict.fromkeys([entry for entry in entries if isinstance(entry, str)])
    return tuple(names) or None


def _names(raw: Mapping[str, object]) -> tuple[str, str, str | None]:
    given = {key: raw[key] for key in ("schema", "table", "filter") if key in raw}
    if given.get("filter", "") is None:
        # Clients that write out every field say null where they have none.
        del given["filter"]
    match given:
        case {"schema": str(schema), "table": str(table), "filter": str(text)}:
            return schema, table, text
        case {"schema": str(schema), "table": str(table), **rest} if not rest:
            return schema, table, None
        case {"schema": str(schema), **rest} if not rest:
            return schema, WILDCARD, None
        case {"table": str(table), **rest} if not rest:
            return "public", table, None
        case _:
            raise _no_parameters(raw)


def _no_parameters(raw: Mapping[str, object]) -> SubscriptionRefusedError:
    shown = "<redacted>" if _TOKEN_KEYS & raw.keys() else inspected(dict(raw))
    return SubscriptionRefusedError(
        "No subscription params provided. Please provide at least a `schema` or `table` "
        f"to subscribe to: {shown}"
    )


def _refusal(text: str, reason: RefusalReason) -> SubscriptionRefusedError:
    # The text goes out as UTF-8, which has no unpaired surrogates.
    return SubscriptionRefusedError(text.encode(errors="replace").decode(), reason=reason)
