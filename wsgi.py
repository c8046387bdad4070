"""What a WSGI server runs: `gunicorn wsgi:app`."""

from api import create_app

app = create_app()
