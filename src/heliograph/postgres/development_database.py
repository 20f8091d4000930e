"""The database of ``heliograph dev``: DATABASE_URL if it is set, else the embedded PostgreSQL.

Either way the data folder is locked, and its secrets fill what the environment does not say::

    async with open_development_database(os.environ, EmbeddedOptions(data_dir=path)) as database:
        database.settings        complete: database URL, JWT secret, keys
        database.embedded        None on a DATABASE_URL; else keep it running in a task of its own
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace

from heliograph.config import Settings
from heliograph.postgres.data_folder import DataFolder
from heliograph.postgres.embedded import EmbeddedOptions, EmbeddedPostgres


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentDatabase:
    """A database that answers, and the settings to serve it with.

    Attributes:
        settings: From the environment, completed by the data folder's secrets.
        embedded: The server that runs for us; None if DATABASE_URL names somebody else's, which
            must be checked before use (`check_database`) and is not loaded with a demo unasked.
    """

    settings: Settings
    embedded: EmbeddedPostgres | None


@contextlib.asynccontextmanager
async def open_development_database(
    environ: Mapping[str, str], options: EmbeddedOptions
) -> AsyncGenerator[DevelopmentDatabase]:
    """Open the data folder and, without a DATABASE_URL, run the embedded PostgreSQL in it.

    The environment is read first: nothing is started if a variable is malformed.

    Raises:
        ConfigurationError: If a variable is malformed, the folder is in use or not ours, no
            PostgreSQL is found, or an extension is lacking.
        StorageError: If PostgreSQL does not start or stop.
        UnavailableError: If PostgreSQL is not ready in time.
    """
    given = Settings.from_environ(environ)
    if given.database_url is not None:
        folder = DataFolder.open(options.data_dir)
        try:
            secrets = folder.load_secrets().for_development(None)
            settings = Settings.for_dev(environ, secrets)
            yield DevelopmentDatabase(settings=settings, embedded=None)
        finally:
            folder.close()
        return
    wanted = replace(options, extensions=(*options.extensions, *given.extensions))
    async with EmbeddedPostgres(wanted) as embedded:
        running = embedded.running
        settings = Settings.for_dev(environ, running.secrets.for_development(running.url))
        yield DevelopmentDatabase(settings=settings, embedded=embedded)
