"""Which errors say that Postgres is away or busy, so that the same statements can succeed later."""

import asyncpg
from sqlalchemy.exc import DBAPIError

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.PostgresSystemError,
    # A schema that does not fit (a migration is under way) or a right that is missing is no report's fault.
    asyncpg.SyntaxOrAccessError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)


def unreachable(error: Exception) -> ConnectionError:
    """For whatever stood in the way of a connection: not to be let in is the fault of nothing that is to be written."""
    first = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return ConnectionError(str(first) or type(first).__name__)


def is_away(error: Exception) -> bool:
    return isinstance(error, _AWAY)
