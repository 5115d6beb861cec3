"""Which errors mean that Postgres is away or busy: the same statements can succeed later, unchanged."""

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

# The base classes of what a call into csms/db raises when the database is the reason.
DATABASE_ERRORS = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

_AWAY = (
    # No connection, or it was lost.
    OSError,
    PoolTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.InvalidAuthorizationSpecificationError,  # 28: a password that is being changed
    asyncpg.InvalidCatalogNameError,  # 3D
    # The server ended the statement or the session.
    asyncpg.OperatorInterventionError,  # 57: shutdown, startup, statement_timeout, pg_cancel_backend
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03
    asyncpg.TransactionTimeoutError,  # 25P04
    asyncpg.InsufficientResourcesError,  # 53: disk full, too many connections
    asyncpg.PostgresSystemError,  # 58: I/O errors
    # Another transaction was in the way.
    asyncpg.TransactionRollbackError,  # 40: serialization failure, deadlock
    asyncpg.ObjectNotInPrerequisiteStateError,  # 55: lock_timeout
    # A standby, before or after a failover.
    asyncpg.ReadOnlySQLTransactionError,  # 25006
    # A migration is under way, or a right is missing. The statements are constant, so that none of these can be
    # caused by a value.
    asyncpg.SyntaxOrAccessError,  # 42
    asyncpg.InvalidSchemaNameError,  # 3F
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)


def is_away(error: BaseException) -> bool:
    """Whether the database was away or busy: nothing is wrong with the values of the statement that failed.

    Takes an error of asyncpg, of SQLAlchemy or of the operating system.
    """
    return isinstance(driver_error(error), _AWAY)


def driver_error(error: BaseException) -> BaseException:
    """The error of asyncpg or of the operating system below SQLAlchemy's wrappers."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def reason(error: BaseException) -> str:
    """What an error says, without the names of SQLAlchemy's wrappers; its type where it says nothing."""
    first = driver_error(error)
    return str(first) or type(first).__name__


def connection_failed(error: Exception) -> ConnectionError:
    """An error for any failure to get a connection: none is the fault of what is to be written."""
    return ConnectionError(reason(error))
