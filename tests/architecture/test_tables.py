"""Every table of a team has its team key and an index that begins with it: in the models, and in the migrated database."""

from collections.abc import Iterator

from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, Table, UniqueConstraint, inspect

from models.base import Base, TeamOwned
from models.database import engine
from models.tables import TeamMember, UsageLedger

# What belongs to a team and is no TeamOwned: its log and the outbox, which outlive it or name their key otherwise.
ALSO_A_TEAMS = {"activity_heads", "activity_logs", "outbox"}


def of_a_team() -> Iterator[Table]:
    for mapper in Base.registry.mappers:
        table = mapper.local_table
        assert isinstance(table, Table)
        if issubclass(mapper.class_, TeamOwned) or table.name in ALSO_A_TEAMS:
            yield table


def refers_to_teams(table: Table) -> bool:
    return "team_id" in table.c and any(
        key.target_fullname == "teams.id" for key in table.c.team_id.foreign_keys
    )


def begins_with_team(table: Table) -> bool:
    lists = [list(index.columns) for index in table.indexes] + [list(table.primary_key.columns)]
    lists += [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    return any(columns and columns[0].name == "team_id" for columns in lists)


def test_every_table_of_a_team_has_its_key_and_its_index() -> None:
    tables = list(of_a_team())
    assert {TeamMember.__tablename__, UsageLedger.__tablename__, *ALSO_A_TEAMS} <= {
        each.name for each in tables
    }
    for table in tables:
        assert refers_to_teams(table), table.name
        assert not table.c.team_id.nullable, table.name
        assert begins_with_team(table), table.name


def test_the_database_has_them_too() -> None:
    inspector = inspect(engine())
    for table in of_a_team():
        keys = [key for key in inspector.get_foreign_keys(table.name) if key["referred_table"] == "teams"]
        assert ["team_id"] in [key["constrained_columns"] for key in keys], table.name
        lists = [index["column_names"] for index in inspector.get_indexes(table.name)]
        lists.append(list(inspector.get_pk_constraint(table.name)["constrained_columns"]))
        assert any(columns[0] == "team_id" for columns in lists if columns), table.name


def test_a_table_with_a_team_is_declared_as_a_teams() -> None:
    declared = {table.name for table in of_a_team()} | {"permissions"}  # whose built-in rows have no team
    assert {table.name for table in Base.metadata.tables.values() if "team_id" in table.c} == declared


def test_a_table_without_key_or_index_is_recognised() -> None:
    metadata = MetaData()
    Table("teams", metadata, Column("id", Integer, primary_key=True))
    bare = Table("bare", metadata, Column("id", Integer, primary_key=True), Column("team_id", Integer))
    assert (refers_to_teams(bare), begins_with_team(bare)) == (False, False)
    late = Table(
        "late",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("team_id", ForeignKey("teams.id")),
        Index("ix_late", "id", "team_id"),
    )
    assert (refers_to_teams(late), begins_with_team(late)) == (True, False)
    good = Table(
        "good",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("team_id", ForeignKey("teams.id")),
        Index("ix_good", "team_id", "id"),
    )
    assert (refers_to_teams(good), begins_with_team(good)) == (True, True)
