import pytest
from flask import Flask

from tests.factories import TeamSetting, make_team


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)
