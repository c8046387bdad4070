"""What a WSGI server and the `flask` command run: `gunicorn wsgi:app`, `flask --app wsgi …`."""

from environs import EnvError

from api import create_app

try:
    app = create_app()
except EnvError as error:
    raise SystemExit(f"error: {error}") from error
