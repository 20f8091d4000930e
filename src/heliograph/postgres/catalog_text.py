"""SQL text that came out of PostgreSQL's own catalog, as a part of a composed query."""

from psycopg import sql
from psycopg.abc import AdaptContext


class CatalogText(sql.Composable):
    """An expression that PostgreSQL deparsed itself (``pg_get_expr``, ``format_type``).

    It is the only text that may enter a statement unquoted: no client can choose it.
    """

    def __init__(self, text: str) -> None:
        """Keep the text; ``%`` is doubled because psycopg reads it as a placeholder."""
        super().__init__(text)
        self._text = text

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        """Return the text as the query's bytes."""
        del context
        return self._text.replace("%", "%%").encode()
