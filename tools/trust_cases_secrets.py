"""Cases of DPoP proofs, passphrases and attachments for tools/make_trust_vectors.py."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any, Final

from curbside.crypto.jose import ProofRequest, compute_thumbprint, make_proof, sign_api_key
from curbside.crypto.passphrase import prepare_passphrase, wrap
from curbside.crypto.passphrase_rating import WORDS, rate_passphrase
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.stream_aead import Sealer, hash_file, pad_size, sealed_size
from curbside.ids import encode_id
from trust_cases_certificates import NOW, b64, device_id, digest, public, seed

JTI: Final = encode_id(digest("jti")[:16])
URI: Final = "https://chat.olaf.example/v1/session"


# --- DPoP -------------------------------------------------------------------------------------------


def sign_parts(header: str, claims: str, key: str = "api") -> str:
    """A JWT of any two texts, signed."""
    signed = f"{b64(header.encode())}.{b64(claims.encode())}"
    return f"{signed}.{b64(Signer('ed25519', seed(key)).sign(signed.encode()))}"


_PLAIN: Final = ProofRequest("DELETE", URI, NOW, "a-token")
_JWK: Final[dict[str, Any]] = {"kty": "OKP", "crv": "Ed25519", "x": b64(public("api"))}
_HEADER: Final[dict[str, Any]] = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": _JWK}
_CLAIMS: Final[dict[str, Any]] = {
    "jti": JTI,
    "htm": "DELETE",
    "htu": URI,
    "iat": NOW,
    "ath": b64(hashlib.sha256(b"a-token").digest()),
}


def changed(part: str, key: str = "api", **members: Any) -> str:
    """The proof with members of its header or claims changed (None: left out), signed."""
    parts = {"header": _HEADER, "claims": _CLAIMS}
    parts[part] = {name: value for name, value in (parts[part] | members).items() if value is not None}
    return sign_parts(json.dumps(parts["header"]), json.dumps(parts["claims"]), key)


def proofs() -> dict[str, Any]:
    """Proofs to make byte for byte, and proofs to refuse (by the server, hence by Python only)."""
    requests = [
        _PLAIN,
        ProofRequest("POST", "https://chat.olaf.example/v1/signup/finish", NOW),
        ProofRequest("GET", "https://chat.olaf.example/v1/stream", NOW, "a-token", digest("nonce")),
    ]
    refused = [*_malformed_proofs(), *_wrong_proofs()]
    return {
        "seed": b64(digest("api")),
        "public_key": b64(public("api")),
        "thumbprint": compute_thumbprint(public("api")),
        "api_key": {
            "device_seed": b64(digest("device")),
            "device_id": device_id("phone"),
            "signature": b64(sign_api_key(seed("device"), device_id("phone"), public("api"))),
        },
        "made": [
            {**asdict(request), "nonce": b64(request.nonce), "jti": JTI, "proof": make_proof(seed("api"), request, JTI)}
            for request in requests
        ],
        "accepted": [changed("claims", iat=NOW - 120), changed("claims", iat=NOW + 120)],
        "refused": [{"reason": reason, "proof": proof, "check": check} for reason, proof, check in refused],
    }


def _malformed_proofs() -> list[tuple[str, str, str]]:
    good = make_proof(seed("api"), _PLAIN, JTI)
    first, second, third = good.split(".")
    header, claims = json.dumps(_HEADER), json.dumps(_CLAIMS)
    twice = claims[:-1] + ', "htu": "https://evil.example/"}'
    cases = [
        ("not a JWT", "x"),
        ("empty", ""),
        ("two parts", f"{first}.{second}"),
        ("too long", good + "A" * 2048),
        ("not ASCII", f"{first}.{second}.\u00e9"),
        ("padding", f"{first}=.{second}.{third}"),
        ("not JSON", sign_parts("{", claims)),
        ("deeply nested JSON", sign_parts("[" * 1000, "{}")),
        ("not an object", sign_parts("[]", claims)),
        ("a member twice", sign_parts(header, twice)),
        ("another typ", changed("header", typ="JWT")),
        ("alg none", changed("header", alg="none")),
        ("alg HS256", changed("header", alg="HS256")),
        ("a header member more", changed("header", crit=["exp"])),
        ("no key", changed("header", jwk=None)),
        ("a private key", changed("header", jwk={**_JWK, "d": b64(digest("api"))})),
        ("a key of 31 bytes", changed("header", jwk={**_JWK, "x": b64(bytes(31))})),
        ("no jti", changed("claims", jti=None)),
        ("a short jti", changed("claims", jti="abc")),
        ("iat as text", changed("claims", iat=str(NOW))),
        ("iat as a fraction", changed("claims", iat=NOW + 0.5)),
        ("iat true", changed("claims", iat=True)),
        ("iat negative", changed("claims", iat=-1)),
        ("a claim more", changed("claims", exp=NOW)),
        ("htm as a list", changed("claims", htm=["DELETE"])),
    ]
    return [(reason, proof, "dpop.form") for reason, proof in cases]


def _wrong_proofs() -> list[tuple[str, str, str]]:
    good = make_proof(seed("api"), _PLAIN, JTI)
    first, second, third = good.split(".")

    def made(request: ProofRequest) -> str:
        return make_proof(seed("api"), request, JTI)

    other_claims = changed("claims", htm="GET").split(".")[1]
    return [
        ("signed by another key", changed("claims", key="evil"), "dpop.signature"),
        ("changed after signing", f"{first}.{other_claims}.{third}", "dpop.signature"),
        ("signature of 63 bytes", f"{first}.{second}.{b64(bytes(63))}", "dpop.signature"),
        ("by another device", changed("header", "evil", jwk={**_JWK, "x": b64(public("evil"))}), "dpop.key"),
        ("another method", made(replace(_PLAIN, method="GET")), "dpop.method"),
        ("another path", made(replace(_PLAIN, uri=URI + "/x")), "dpop.uri"),
        ("another host", changed("claims", htu="https://evil.example/v1/session"), "dpop.uri"),
        ("121 seconds old", changed("claims", iat=NOW - 121), "dpop.time"),
        ("121 seconds ahead", changed("claims", iat=NOW + 121), "dpop.time"),
        ("another token", made(ProofRequest("DELETE", URI, NOW, "b-token")), "dpop.token"),
        ("without the token", changed("claims", ath=None), "dpop.token"),
        ("an unasked nonce", changed("claims", nonce="AAAA"), "dpop.nonce"),
    ]


# --- passphrases ------------------------------------------------------------------------------------

_TEXTS: Final = (
    "purple otter drinks coffee",
    " spaces are kept ",
    "Stra\u00dfe nach \u00c5rhus",
    "A\u030angstrom and \u212bngstrom",
    "\ufb01ne \uff21\uff22\uff23 \u2460\u00b2",
    "\u304c\u304b\u3099\uff76\uff9e \u5bc6\u7801",
    "\U0001f9e1\U0001f469\u200d\u2695\ufe0f clinic",
    "",
)
_RATED: Final = (
    *_TEXTS,
    "short",
    "fourteen chars",
    "password1234567",
    "P@ssw0rd P@ssw0rd",
    "correct horse battery staple",
    "Correct-Horse-Battery-Staple-9",
    "aaaaaaaaaaaaaaaaaaaa",
    "abcdefghijklmnopqrstuvwxyz",
    "9876543210 9876543210",
    "qwertyuiopasdfghjkl",
    "poiuytrewq zxcvbnm",
    "hospitalhospitalhospital",
    "Asa Oberg nurse ward",
    "olaf olaf olaf olaf olaf",
    "summer2025summer2025",
    "blue xylophone sneezes twice",
    "Tuesday the lamp was green",
    "gr8 llamas k1ck softly",
    "\u5bc6\u7801\u5f88\u96be\u731c\u7684\u4e00\u53e5\u8bdd\u5417\u771f\u7684\u5417",
    "\U0001f9e1" * 15,
)


def passphrases() -> dict[str, Any]:
    """Normal forms, wraps and ratings."""
    vault_key, salt, nonce = digest("vault key"), digest("salt")[:16], digest("nonce")[:12]
    wraps = [
        {
            "passphrase": text,
            "vault_id": "vault-7",
            "vault_key": b64(vault_key),
            "record": wrap(SecretBytes(vault_key), text, "vault-7", salt, nonce),
        }
        for text in (_TEXTS[0], _TEXTS[3])
    ]
    record: dict[str, Any] = dict(wrap(SecretBytes(vault_key), _TEXTS[0], "vault-7", salt, nonce))
    flipped = bytearray(digest("x") + bytes(16))
    refused: list[tuple[str, Any]] = [
        ("not an object", []),
        ("a member missing", {name: value for name, value in record.items() if name != "salt"}),
        ("a member more", {**record, "hint": "x"}),
        ("another kind", {**record, "kind": "pin"}),
        ("another kdf", {**record, "kdf": "scrypt"}),
        ("too little memory", {**record, "memory_kib": 19456}),
        ("too much memory", {**record, "memory_kib": 1 << 20}),
        ("memory as text", {**record, "memory_kib": "65536"}),
        ("memory as a fraction", {**record, "memory_kib": 65536.5}),
        ("memory true", {**record, "memory_kib": True}),
        ("no passes", {**record, "passes": 0}),
        ("100 lanes", {**record, "lanes": 100}),
        ("short salt", {**record, "salt": "AAAA"}),
        ("salt with padding", {**record, "salt": record["salt"] + "=="}),
        ("short ciphertext", {**record, "ciphertext": "AAAA"}),
        ("nonce as a number", {**record, "nonce": 1}),
    ]
    return {
        "normal": [{"text": text, "bytes": prepare_passphrase(text).reveal().hex()} for text in _TEXTS],
        "wraps": wraps,
        "wrong": [
            {
                "reason": "another passphrase",
                "passphrase": "purple otter drinks coffeE",
                "vault_id": "vault-7",
                "record": record,
            },
            {"reason": "another vault", "passphrase": _TEXTS[0], "vault_id": "vault-8", "record": record},
            {
                "reason": "another ciphertext",
                "passphrase": _TEXTS[0],
                "vault_id": "vault-7",
                "record": {**record, "ciphertext": b64(bytes(flipped))},
            },
        ],
        "refused": [{"reason": reason, "record": value} for reason, value in refused],
        "words": list(WORDS),
        "person": {"name": "Asa Oberg", "organization": "St. Olaf Hospital"},
        "ratings": [
            {"passphrase": text, **asdict(rate_passphrase(text, "Asa Oberg", "St. Olaf Hospital"))} for text in _RATED
        ],
    }


# --- attachments ------------------------------------------------------------------------------------


def pattern(size: int) -> bytes:
    """Plaintext that both sides can make: byte i is (7 i + i // 256) mod 251."""
    return bytes((7 * i + i // 256) % 251 for i in range(size))


def attachments() -> dict[str, Any]:
    """Sizes, whole files (by hash where they are long), and what may be done to a file that must be noticed."""
    key, prefix = seed("attachment"), digest("prefix")[:7]
    sizes = (0, 1, 4096, 4097, 4871, 4872, 6889, 6890, 8192, 65536, 65537, 131072, 200_000, 25_000_000, 2**31 + 1)
    files = []
    for size in (0, 11, 65536, 70_000, 200_000):
        sealer = Sealer(key, size, prefix)
        sealed = sealer.update(pattern(size)) + sealer.finish()
        files.append({"size": size, "length": len(sealed), "sha256": b64(hash_file(sealed)), "begin": b64(sealed[:64])})
    last = 7 + 3 * 65552
    return {
        "key": b64(key.reveal()),
        "prefix": b64(prefix),
        "sizes": [{"size": size, "padded": pad_size(size), "sealed": sealed_size(size)} for size in sizes],
        "files": files,
        "corrupt_size": 200_000,
        "corrupt": [
            {"reason": "nothing", "edit": ["cut", 0]},
            {"reason": "without its last byte", "edit": ["drop", 1]},
            {"reason": "without its last chunk", "edit": ["cut", last]},
            {"reason": "cut within a chunk", "edit": ["cut", 100_000]},
            {"reason": "a byte more", "edit": ["append", 1]},
            {"reason": "a bit of the nonce prefix", "edit": ["flip", 3]},
            {"reason": "a bit of the first chunk", "edit": ["flip", 7]},
            {"reason": "a bit of a tag", "edit": ["flip", 7 + 65551]},
            {"reason": "a bit of the padding", "edit": ["flip", sealed_size(200_000) - 17]},
            {"reason": "two chunks exchanged", "edit": ["swap", 0, 1]},
            {"reason": "a chunk twice", "edit": ["copy", 0, 1]},
            {"reason": "another key", "edit": ["key"]},
            {"reason": "a smaller size of another bucket", "edit": ["size", 4096]},
            {"reason": "a smaller size of the same bucket", "edit": ["size", 199_999]},
        ],
    }
