"""The least application that serves sockets; also what a gunicorn of the tests runs."""

from flask import Flask

from realtime import sockets


def make_app() -> Flask:
    app = Flask("served")
    sockets.register(app)
    return app


app = make_app()
