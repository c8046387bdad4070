"""What noting a refusal costs."""

from models.access.actor import Named
from models.database import transaction
from models.operations import refusals
from tests.factories import TeamSetting
from tests.models.conftest import CountStatements


def test_a_repeat_is_one_small_statement(team: TeamSetting, statements: CountStatements) -> None:
    def note() -> None:
        with transaction() as session:
            by = Named(team.id, team.viewer.id)
            refusals.note(session, by, "tasks:create", method="POST", route="/x")

    note()
    with statements() as seen:
        note()
    assert [statement.split()[0] for statement in seen] == ["UPDATE"]
