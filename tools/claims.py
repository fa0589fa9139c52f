"""What no document and no screen of Curbside may claim, why, and the honest version.

A sentence that denies the claim ("is not certified") is fine. A passage that has to quote
claims stands between `<!-- claims: quoted -->` and `<!-- claims: ours -->`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Forbidden:
    """A claim: how it is put (any of the patterns), why it is untrue, what to say.

    deniable: a denial before it in the same sentence makes it harmless.
    """

    patterns: tuple[str, ...]
    why: str
    say: str
    deniable: bool = True


@dataclass(frozen=True)
class Claim:
    """A forbidden claim found in a text."""

    text: str
    why: str
    say: str


FORBIDDEN = [
    Forbidden(
        (
            r"HIPAA[- ](certified|certification|approved|accredited|endorsed)",
            r"(guarantees?|guaranteed|ensures?|ensured|fully|100 ?%)\s+HIPAA[- ]complian(t|ce)",
            r"HIPAA[- ]complian(t|ce)\s+(is\s+)?guaranteed",
            r"(is|are|makes? you|stay)\s+HIPAA[- ]compliant",
        ),
        "nobody certifies software for HIPAA; organisations comply, programs do not",
        "made to support an organisation's HIPAA programme",
    ),
    Forbidden((r"\bNPRM\s+(requires?|mandates?|demands?)",), "it is a proposal", "built to the proposal as well"),
    Forbidden(
        (r"\b(no|without( a)?|don'?t need( a)?|needs? no)\s+(BAA|business associate agreement)\b",),
        "an operator that cannot read the data is still a business associate",
        "the operator needs a BAA",
        deniable=False,
    ),
    Forbidden(
        (
            r"encrypt(ed|ion)[^.\n]{0,40}\b(so|means|therefore)\b[^.\n]{0,30}\bno(t a)?\b[^.\n]{0,20}\bbreach",
            r"no breach to report",
            r"never (have|need) to report a breach",
        ),
        "only with safe keys and a method that meets the guidance, and metadata may be PHI",
        "evidence for your assessment",
        deniable=False,
    ),
    Forbidden(
        (r"FIPS[- ]?(140(-[23])?[- ])?(validated|certified|compliant)\b", r"\bFIPS 140-2\b"),
        "a module is validated, not an algorithm",
        "uses approved algorithms where named; validation depends on the module you run",
    ),
    Forbidden(
        (
            r"zero[- ]trust in (the|our) server",
            r"(nobody|no one|no-one|only you)\s+(but you\s+|else\s+)?can\s+(ever\s+)?read\s+"
            r"(your|them|it\b|this|what|messages)",
            r"even we (can ?not|can't) read",
        ),
        "the web client comes from the server, and an archive may be a member",
        "an installed client resists a hostile server in the listed ways",
        deniable=False,
    ),
    Forbidden(
        (
            r"(blocks|prevents|disables|stops)\s+screen ?(shots?|captures?|recordings?)",
            r"screen ?shots?\s+(are|is)\s+(blocked|prevented|impossible|disabled)",
        ),
        "no web page can",
        "the screen is covered when the app is hidden",
    ),
    Forbidden(
        (r"wip(e|es|ing)\s+(erases?|deletes?|cleans?|clears?)\s+(a |the |your )?(lost|stolen)",),
        "a phone that is offline hears nothing",
        "its keys stop working within the policy's hours, even offline",
    ),
    Forbidden(
        (r"(gone|deleted|erased|removed|vanish(es)?)\s+(from\s+)?everywhere\b",),
        "exports, photographs and offline devices exist",
        "keys destroyed at all known holders; receipts listed",
    ),
    Forbidden(
        (
            r"\b(fully |completely )?anonymous (messag|chat|communicat|use)\w*",
            r"\b(no|zero) metadata\b",
            r"sealed[- ]sender",
        ),
        "routing, times and addresses are seen by the server",
        "content is hidden; these metadata are kept for N days",
    ),
    Forbidden(
        (r"key (transparency|directory)\s+(prevents?|stops?|makes? impossible|rules? out)",),
        "it detects",
        "makes a swapped key visible",
    ),
    Forbidden(
        (r"read (receipts?|reports?)\s+(proves?|guarantees?|confirms? that (she|he|they) read)",),
        "the client makes it",
        "the device reported opening it",
    ),
    Forbidden((r"tamper-?\s?proof",), "nothing is", "tamper-evident, and the command that verifies it"),
    Forbidden(
        (r"(virus|malware)[- ]?(scanned|free|checked)",),
        "a server cannot see the files",
        "type checked and re-encoded on the device",
    ),
    Forbidden(
        (r"password (rules?|strength|polic(y|ies))\s+(is|are)\s+(enforced|checked)\s+(by|on)\s+the server",),
        "with OPAQUE the server never sees the password",
        "checked in the app",
    ),
    Forbidden(
        (r"\bPIN\s+(alone\s+)?(protects?|secures?|encrypts?)\s+(your|the|all)\s+(data|messages|vault)",),
        "a short PIN alone is guessed offline within a day",
        "the PIN works only together with the rate-limited server share",
    ),
    Forbidden(
        (
            r"(safe|secure|protected)\s+(even\s+)?on\s+(a\s+)?(jail-?broken|rooted|infected|compromised|shared)",
            r"extensions\s+(can ?not|can't)\s+(read|see)",
        ),
        "a compromised device reads what its user reads",
        "a compromised device reads what you read",
    ),
    Forbidden(
        (
            r"replaces?\s+(the|your|an)\s+(EHR|EMR|911|112|emergency number|order entry|CPOE)",
            r"\be-?prescri(be|bing) (with|in|through)",
        ),
        "it is for communication",
        "communication; orders are off unless the policy turns them on",
    ),
    Forbidden(
        (r"forward secrecy\s+(protects?|secures?|covers?)\s+(old|past|stored|your|kept)",),
        "history is kept on purpose",
        "traffic is forward secret; kept history is protected by the vault alone",
    ),
    Forbidden(
        (
            r"HIPAA\s+(bans?|forbids?|prohibits?|outlaws?)\s+(WhatsApp|texting|SMS|iMessage)",
            r"HIPAA\s+(requires?|mandates?)\s+end-to-end",
        ),
        "neither text exists",
        "consumer apps lack a BAA, access control, audit and retention",
    ),
    Forbidden(
        (
            r"\b(is|are|be|plausibly|fully|truly)\s+deniable\b|\bdeniable (messag|encrypt|authent)\w*",
            r"\b(offers?|provides?|gives?|with|has) (plausible |full )?deniability",
            r"non-?\s?repudia(ble|tion)",
        ),
        "signatures bind a device, not a hand",
        "attributable to a registered device key",
    ),
    Forbidden(
        (
            r"quantum[- ](safe|secure|proof|resistant)",
            r"(military|bank)[- ]grade",
            r"un-?hackable|unbreakable",
            r"bullet-?proof (security|encryption)",
        ),
        "empty or untrue",
        "name the suite and its version",
    ),
    Forbidden(
        (r"(GDPR|Part 2|SOC ?2|HITRUST)[- ](compliant|certified)",),
        "organisations comply, programs do not",
        "has the functions listed",
    ),
]

COMPILED = [(re.compile("|".join(rule.patterns), re.IGNORECASE), rule) for rule in FORBIDDEN]
DENIAL = re.compile(
    r"\b(not|no|never|nobody|nothing|none|cannot|can't|isn't|aren't|doesn't|don't|nor|neither|without"
    r"|rather than|instead of)\b",
    re.IGNORECASE,
)
QUOTED = re.compile(r"<!-- claims: quoted -->.*?<!-- claims: ours -->", re.DOTALL)
SENTENCE_END = re.compile(r"[.!?|]\s|\n\s*\n|\n[-*#|]")


def find_claims(text: str) -> list[tuple[int, Claim]]:
    """Forbidden claims in a text, each with its line number."""
    kept = QUOTED.sub(lambda match: "\n" * match.group().count("\n"), text)
    found = []
    for pattern, rule in COMPILED:
        for match in pattern.finditer(kept):
            before = SENTENCE_END.split(kept[max(0, match.start() - 200) : match.start()])[-1]
            if rule.deniable and DENIAL.search(before):
                continue
            found.append((kept.count("\n", 0, match.start()) + 1, Claim(match.group(), rule.why, rule.say)))
    return sorted(found, key=lambda item: item[0])
