"""The reader's language: what they chose (a cookie), else what their browser asks for, else English."""

from pathlib import Path

from flask import Flask, request
from flask_babel import Babel

LANGUAGES = {"en": "English", "ko": "한국어"}
TRANSLATIONS = Path(__file__).parent / "translations"
COOKIE = "agenthq_language"


def chosen() -> str:
    cookie = request.cookies.get(COOKIE, "")
    return cookie if cookie in LANGUAGES else request.accept_languages.best_match(list(LANGUAGES)) or "en"


def register(app: Flask) -> None:
    Babel(app, locale_selector=chosen, default_translation_directories=str(TRANSLATIONS))
