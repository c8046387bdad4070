"""What every table stands on: constraint names, ids, times and the mixin of what belongs to a team."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, LargeBinary, MetaData, func
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column
from uuid_utils.compat import uuid7

UUIDv7 = Annotated[UUID, mapped_column(primary_key=True, default=uuid7)]
"""A primary key that sorts by time (RFC 9562, 5.7)."""
Created = Annotated[datetime, mapped_column(server_default=func.now())]
"""The start of the transaction that made the row, by the database's clock."""
Updated = Annotated[datetime, mapped_column(server_default=func.now(), onupdate=func.now())]
Json = Annotated[Any, mapped_column(JSONB(none_as_null=True))]
Address = Annotated[str, mapped_column(INET)]
Count = Annotated[int, mapped_column(BigInteger)]


class Base(DeclarativeBase):
    # What the database sets (times above all) comes back with the INSERT or UPDATE that set it, not by another query.
    __mapper_args__ = {"eager_defaults": True}
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True), bytes: LargeBinary}


class TeamOwned:
    """A row of one team. Its tables have an index that begins with `team_id`; tests/architecture checks that."""

    @declared_attr
    @classmethod
    def team_id(cls) -> Mapped[UUID]:
        return mapped_column(ForeignKey("teams.id", ondelete="CASCADE"))
