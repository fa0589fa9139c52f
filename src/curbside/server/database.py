"""Which database a configuration names: PostgreSQL with a `database_url`, else the encrypted SQLite file.

PostgreSQL's library is loaded where it is needed: it is a tenth of a second of every start.
"""

from __future__ import annotations

from curbside.server.config import Config
from curbside.server.database_key import load_database_key
from curbside.server.store.ports import Store
from curbside.server.store.sqlite import open_sqlite_store
from curbside.server.store.sqlite_tables import open_sqlite_snapshot
from curbside.server.store.tables import TableReader


def open_store(config: Config, is_server: bool = True) -> Store:
    """The store that the configuration names.

    is_server: hold the database for this process alone, as the one server, unless the configuration says that others
    share it; a command that looks beside it does not.

    Raises: ConfigError, StoreUnavailable, StorageFull.
    """
    key, readers = load_database_key(config.database_key), 2 if is_server else 1
    if config.database_url is not None:
        from curbside.server.store.postgres import open_postgres_store
        from curbside.server.store.postgres_open import PostgresSettings

        is_shared = is_server and config.bus.is_shared
        settings = PostgresSettings(config.database_url, is_alone=is_server and not is_shared, is_shared=is_shared)
        return open_postgres_store(settings, key, readers)
    return open_sqlite_store(str(config.database_path), key, readers)


def open_snapshot(config: Config) -> TableReader:
    """All tables of the store that the configuration names, in one state, also while servers use it.

    Raises: ConfigError when no server ran yet, StoreUnavailable.
    """
    key = load_database_key(config.database_key)
    if config.database_url is not None:
        from curbside.server.store.postgres_open import PostgresSettings
        from curbside.server.store.postgres_tables import open_postgres_snapshot

        return open_postgres_snapshot(PostgresSettings(config.database_url), key)
    return open_sqlite_snapshot(config.database_path, key)


def has_database(config: Config) -> bool:
    """Whether a server may have run with this configuration."""
    return config.database_url is not None or config.database_path.exists()
