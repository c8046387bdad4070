"""E-mail addresses as identities."""

import unicodedata


def normalize_email(email: str) -> str:
    """The form in which two spellings of one address are equal: Unicode NFKC, case folded, trimmed."""
    return unicodedata.normalize("NFKC", email.strip()).casefold()
