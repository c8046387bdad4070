"""Amounts in minor units, as people read them. The digits of a currency are those of ISO 4217."""

WITHOUT_MINOR_UNIT = frozenset(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()  # noqa: SIM905
)
OF_THREE_DIGITS = frozenset("BHD IQD JOD KWD LYD OMR TND".split())  # noqa: SIM905


def digits(currency: str) -> int:
    """How many decimal places the currency's minor unit is."""
    if currency in WITHOUT_MINOR_UNIT:
        return 0
    return 3 if currency in OF_THREE_DIGITS else 2


def decimal_of(amount: int, currency: str) -> str:
    """The amount in the currency's unit, as a plain decimal: -1250 of USD is -12.50."""
    return _written(amount, currency, "d")


def shown(amount: int, currency: str) -> str:
    """The amount with its currency, as in `1,234.50 USD`."""
    return f"{_written(amount, currency, ',d')} {currency}"


def _written(amount: int, currency: str, how: str) -> str:
    places = digits(currency)
    whole, part = divmod(abs(amount), 10**places)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:{how}}.{part:0{places}d}" if places else f"{sign}{whole:{how}}"
