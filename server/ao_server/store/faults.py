"""What a failed statement says of the database, whichever driver raised it, with SQLAlchemy around it or not."""

from sqlalchemy.exc import DBAPIError


def is_away(error: BaseException) -> bool:
    """Whether the database could not be used just now (locked, full, not reachable), as against a fault of ours."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # The drivers' own, or SQLAlchemy's around it: of one name in all of them.
    return any(each.__name__ == "OperationalError" for each in type(error).__mro__)


def is_serialization_failure(error: BaseException) -> bool:
    """Whether PostgreSQL gave up a transaction that will work when repeated (serialization failure, deadlock)."""
    original = getattr(error, "orig", error)
    return getattr(original, "sqlstate", None) in {"40001", "40P01"}
