"""Pages as they are sent, where no browser is needed to see what they say."""

from api import cookies
from tests.factories import Answer, Person

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def look(person: Person, path: str, language: str = "en") -> Answer:
    client = person.app.test_client()
    client.set_cookie(cookies.NAME, person.token)
    return client.get(path, headers={**HTML, "Accept-Language": language})
