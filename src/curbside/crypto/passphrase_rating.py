"""How hard a passphrase is to guess. Honest limits: it is checked in the app only, by a short list and simple patterns;
a server that never learns passphrases cannot check them again.

The text is read from left to right. A word that everybody tries first, the person's or organisation's name, a run
("1234", "aaaa", "qwer") or a piece that came before counts as one guess unit; so does any other single character.
`web/src/core/crypto/passphrase_rating.ts` is the twin and has the same lists (vectors/trust/passphrases.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from curbside.crypto.passphrase import MAXIMUM_CHARS, MINIMUM_CHARS, normalize_passphrase

_ACCEPTABLE_UNITS: Final = 11
_SCORES: Final = ((18, 4), (14, 3), (_ACCEPTABLE_UNITS, 2), (7, 1))
WORDS: Final = """
    password passphrase passwort passcode kennwort secret welcome letmein login signin admin administrator
    curbside hospital clinic doctor nurse medical medicine patient physician ward surgery health healthcare
    monkey dragon football baseball basketball superman batman princess sunshine shadow master michael jordan
    jennifer charlie summer winter spring autumn iloveyou love freedom whatever trustno starwars pokemon computer
    internet google whatsapp facebook changeme default temporary testing correcthorsebatterystaple
    thequickbrownfoxjumpsoverthelazydog tobeornottobethatisthequestion maytheforcebewithyou openupthedoor
    lorem ipsum january february march april june july august september october november december monday tuesday
    wednesday thursday friday saturday sunday
""".split()  # noqa: SIM905 - a hundred quotation marks are no help
_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm")
_LEET: Final = str.maketrans("@4301$5!7", "aaeoissit")
_SEPARATORS: Final = frozenset(" -_.,+/")


@dataclass(frozen=True, slots=True)
class Rating:
    """score: 0 (first guess) to 4. hint: one sentence for the person, "" when all is well."""

    score: int
    hint: str
    acceptable: bool


def rate_passphrase(passphrase: str, name: str, organization: str) -> Rating:
    """Judge a passphrase for a person of this name in this organisation.

    Raises: UsageError when it is not Unicode text.
    """
    if len(passphrase) > MAXIMUM_CHARS:
        return Rating(0, f"At most {MAXIMUM_CHARS} characters.", False)
    text = normalize_passphrase(passphrase)
    personal = [word for part in (name, organization) for word in _split(_fold(normalize_passphrase(part)))]
    units = count_units(text, personal)
    score = next((score for least, score in _SCORES if units >= least), 0)
    if len(text) < MINIMUM_CHARS:
        missing = MINIMUM_CHARS - len(text)
        more = "1 more character" if missing == 1 else f"{missing} more characters"
        return Rating(min(score, 1), f"{more}: four or five unrelated words are good.", False)
    if units < _ACCEPTABLE_UNITS:
        return Rating(
            score, "Too easy to guess: avoid names, well-known words and patterns; add unrelated words.", False
        )
    if score < 4:
        return Rating(score, "Good enough. One more unrelated word makes it strong.", True)
    return Rating(score, "", True)


def count_units(text: str, personal: list[str]) -> int:
    """Guess units of a normalised text, as the module says."""
    plain = "".join(char for char in _fold(text) if char not in _SEPARATORS)
    unleeted = plain.translate(_LEET)
    words = {word for word in (*WORDS, *personal) if len(word) >= 3}
    at, units = 0, 0
    while at < len(plain):
        at += max(_match_word(plain, unleeted, at, words), _match_run(plain, at), _match_repeat(plain, at), 1)
        units += 1
    return units


def _fold(text: str) -> str:
    return text.lower()


def _split(text: str) -> list[str]:
    return "".join(char if char not in _SEPARATORS else " " for char in text).split(" ")


def _match_word(plain: str, unleeted: str, at: int, words: set[str]) -> int:
    fitting = (len(word) for word in words if plain.startswith(word, at) or unleeted.startswith(word, at))
    return max(fitting, default=0)


def _match_run(plain: str, at: int) -> int:
    """The length of a run of three or more: one character, neighbours in the alphabet, digits or on the keyboard."""
    longest = 0
    for step in (0, 1, -1):
        end = at + 1
        while end < len(plain) and ord(plain[end]) - ord(plain[end - 1]) == step:
            end += 1
        longest = max(longest, end - at)
    for row in _ROWS:
        for keys in (row, row[::-1]):
            end = at + 2
            while end <= len(plain) and plain[at:end] in keys:
                end += 1
            longest = max(longest, end - 1 - at)
    return longest if longest >= 3 else 0


def _match_repeat(plain: str, at: int) -> int:
    length = 0
    while at + length < len(plain) and plain[at : at + length + 1] in plain[:at]:
        length += 1
    return length if length >= 3 else 0
