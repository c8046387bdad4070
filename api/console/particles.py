"""Korean particles after names that are known only when the sentence is said: 을 or 를, 이 or 가, by the last sound."""

PARTICLES = {"은": "는", "이": "가", "을": "를", "과": "와", "으로": "로"}
"""After a final consonant, and after a vowel."""
FIRST_SYLLABLE, LAST_SYLLABLE, FINALS, RIEUL = 0xAC00, 0xD7A3, 28, 8
FINALS_OF_DIGITS = {"0": 21, "1": RIEUL, "3": 16, "6": 1, "7": RIEUL, "8": RIEUL}
"""영, 일, 삼, 육, 칠 and 팔 end in a consonant; the others in a vowel."""
FINALS_OF_LETTERS = {"l": RIEUL, "m": 16, "n": 4} | dict.fromkeys("aeiouwy", 0)
"""As names in Latin letters are mostly said; of the others nobody can tell (Park is 박, Clark is 클라크)."""


class Word:
    """A part of a sentence: `{name:을}` is the word with the particle that fits it. `shown` stands for it in HTML."""

    __slots__ = ("shown", "text")

    def __init__(self, text: str, shown: str | None = None) -> None:
        self.text = text
        self.shown = text if shown is None else shown

    def __format__(self, spec: str) -> str:
        return self.shown + (particle(self.text, spec) if spec else "")


def particle(word: str, wanted: str) -> str:
    """The particle's form after the word; both, as in "을(를)", where its sound can't be told. Raises KeyError for no particle."""
    other = PARTICLES[wanted]
    final = _final(word)
    if final is None:
        return f"{wanted}({other})" if len(wanted) == 1 else f"({wanted[0]}){other}"
    return other if final == 0 or (final == RIEUL and wanted == "으로") else wanted


def _final(word: str) -> int | None:
    """The number of the last syllable's final consonant, 0 for none; None where it can't be told."""
    last = next((letter for letter in reversed(word.lower()) if letter.isalnum()), "")
    if last and FIRST_SYLLABLE <= ord(last) <= LAST_SYLLABLE:
        return (ord(last) - FIRST_SYLLABLE) % FINALS
    if last.isdecimal():
        return FINALS_OF_DIGITS.get(last, 0)
    return FINALS_OF_LETTERS.get(last)
