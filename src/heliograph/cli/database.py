"""The database that an administrator's command works on.

``DATABASE_URL`` comes first; without it the one in the data folder of ``heliograph dev``.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from heliograph.cli.tail_keys import read_secrets
from heliograph.config import Settings
from heliograph.errors import ConfigurationError
from heliograph.postgres.connecting import connect
from heliograph.postgres.migrate import Connection


@asynccontextmanager
async def administration(settings: Settings, data_dir: Path) -> AsyncGenerator[Connection]:
    """Lend an autocommit connection of the owner login.

    Raises:
        ConfigurationError: If neither the environment nor the folder names a database, or it
            refuses the login.
        UnavailableError: If it does not answer.
    """
    url = read_secrets(settings, data_dir).database_url
    if url is None:
        message = (
            "DATABASE_URL: missing; set it, or name the data folder of `heliograph dev` with "
            "--data-dir"
        )
        raise ConfigurationError(message)
    connection = await connect(url, variable="DATABASE_URL")
    try:
        yield connection
    finally:
        await connection.close()
