"""What a WSGI server and the `flask` command run: `gunicorn wsgi:app`, `flask --app wsgi …`."""

from api import create_app
from models.settings import settings_or_exit

app = create_app(settings_or_exit())
