"""The metadata of the schema, and the kinds of columns that its tables share.

The tables are SQLAlchemy Core tables, in the modules named `*tables.py`. Columns are named as the fields of the
records. Identities sort and compare by byte (`COLLATE "C"`), independently of the server's locale.
"""

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, MetaData, String, Text, text

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def id_column(
    name: str, references: str | None = None, *, primary_key: bool = False, nullable: bool = False
) -> Column[str]:
    """An identity. `references`: the table whose `id` it is."""
    to = () if references is None else (ForeignKey(f"{references}.id"),)
    return Column(name, String(collation="C"), *to, primary_key=primary_key, nullable=nullable)


def charger_column(*, primary_key: bool = True) -> Column[str]:
    """`charger_id` of a row that is deleted with its charger."""
    to = ForeignKey("chargers.id", ondelete="CASCADE")
    return Column("charger_id", String(collation="C"), to, primary_key=primary_key, nullable=False)


def time_column(name: str, *, primary_key: bool = False, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), primary_key=primary_key, nullable=nullable)


def now_column(name: str) -> Column[object]:
    """A time that is, by default, that of the row's insertion."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def choice_column(name: str, *choices: str, default: str | None = None) -> Column[str]:
    """A text that is one of `choices`."""
    listed = ", ".join(f"'{choice}'" for choice in choices)
    check = CheckConstraint(f"{name} IN ({listed})", name=name)
    return Column(name, Text, check, nullable=False, server_default=default)
