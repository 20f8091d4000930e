"""Which database `heliograph dev` uses, and where its secrets come from."""

import psycopg
import pytest

from heliograph.errors import ConfigurationError
from heliograph.postgres.data_folder import DataFolder
from heliograph.postgres.development_database import open_development_database
from heliograph.postgres.embedded import EmbeddedOptions

pytestmark = pytest.mark.postgres


@pytest.mark.asyncio
async def test_a_database_url_is_used_and_nothing_is_started(tmp_path, postgres_url):
    options = EmbeddedOptions(data_dir=tmp_path / "folder")
    environ = {"DATABASE_URL": postgres_url}
    async with open_development_database(environ, options) as database:
        assert database.embedded is None
        assert database.settings.url_for_administration().reveal() == postgres_url
        assert database.settings.jwt_secret is not None
        with pytest.raises(ConfigurationError, match="in use"):
            DataFolder.open(options.data_dir)
    assert not (options.data_dir / "postgres").exists()
    async with open_development_database(environ, options) as again:
        assert again.settings.jwt_secret == database.settings.jwt_secret


@pytest.mark.asyncio
async def test_without_a_database_url_one_is_run(tmp_path):
    options = EmbeddedOptions(data_dir=tmp_path / "folder")
    async with open_development_database({"HELIOGRAPH_PORT": "9000"}, options) as database:
        assert database.embedded is not None
        assert database.settings.port == 9000
        url = database.settings.url_for_replication().reveal()
        with psycopg.connect(url) as connection:
            assert connection.execute("show wal_level").fetchone() == ("logical",)


@pytest.mark.asyncio
async def test_a_malformed_variable_is_named_before_anything_is_touched(tmp_path):
    options = EmbeddedOptions(data_dir=tmp_path / "folder")
    with pytest.raises(ConfigurationError, match="HELIOGRAPH_PORT"):
        async with open_development_database({"HELIOGRAPH_PORT": "x"}, options):
            pass
    assert not options.data_dir.exists()
