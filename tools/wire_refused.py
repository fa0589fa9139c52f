"""Bytes that curbside.wire must refuse, written by hand; tools/wire_vectors.py makes vectors of them."""

from __future__ import annotations

from typing import Final

SALT: Final = bytes(range(16))
TARGET: Final = b"\x01" + bytes(range(31))
MESSAGE_BYTES: Final = 65536
MALFORMED: Final = "malformed"

_S = "50" + SALT.hex()
_BODY = "8501600160" + "4178"  # render, "", single, "", "x"
_NULL = "830160" + "00"
_EXT = "8f0660" + "0260" + "6175"  # attachment, "", external, "", url "u"


def _message(
    salt: str = _S,
    replaces: str = "f6",
    topic: str = "40",
    expires: str = "f6",
    reply: str = "f6",
    extensions: str = "a0",
    body: str = _BODY,
) -> str:
    return "87" + salt + replaces + topic + expires + reply + extensions + body


def _nested(levels: int) -> str:
    return _BODY if levels == 1 else "85016003" + "0282" + _nested(levels - 1) + _NULL


def _envelopes() -> dict[str, str]:
    """What is wrong with the seven fields."""
    whole = _message()
    return {
        "empty": "",
        "trailing-byte": whole + "00",
        "second-document": whole + whole,
        "cut-short": whole[:-2],
        "cut-in-head": whole[:4],
        "not-an-array": "a0",
        "just-null": "f6",
        "six-fields": "86" + whole[2 : -len(_BODY)],
        "eight-fields": "88" + whole[2:] + "f6",
        "indefinite-array": "9f" + whole[2:] + "ff",
        "array-length-not-shortest": "9807" + whole[2:],
        "tagged": "d9d9f7" + whole,
        "salt-15": _message(salt="4f" + SALT.hex()[2:]),
        "salt-17": _message(salt="51" + SALT.hex() + "00"),
        "salt-null": _message(salt="f6"),
        "salt-text": _message(salt="70" + "61" * 16),
        "salt-length-not-shortest": _message(salt="5810" + SALT.hex()),
        "salt-indefinite": _message(salt="5f50" + SALT.hex() + "ff"),
        "replaces-31": _message(replaces="581f" + "01" * 31),
        "replaces-33": _message(replaces="5821" + "01" * 33),
        "replaces-other-hash": _message(replaces="5820" + "02" * 32),
        "replaces-undefined": _message(replaces="f7"),
        "reply-text": _message(reply="7820" + "61" * 32),
        "reply-other-hash": _message(reply="5820" + "00" * 32),
        "topic-text": _message(topic="60"),
        "topic-null": _message(topic="f6"),
        "topic-4097": _message(topic="591001" + "00" * 4097),
        "expires-number": _message(expires="00"),
        "expires-one": _message(expires="81f5"),
        "expires-order": _message(expires="8200f5"),
        "expires-negative": _message(expires="82f420"),
        "expires-33-bits": _message(expires="82f41b0000000100000000"),
        "expires-float": _message(expires="82f4f93c00"),
        "expires-relative-years": _message(expires="82f51a" + (366 * 86400 + 1).to_bytes(4, "big").hex()),
        "expires-number-not-shortest": _message(expires="82f41800"),
    }


def _extensions() -> dict[str, str]:
    """What is wrong with the extensions map."""
    return {
        "extensions-null": _message(extensions="f6"),
        "extensions-array": _message(extensions="80"),
        "extensions-indefinite": _message(extensions="bfff"),
        "extensions-duplicate-key": _message(extensions="a220002001"),
        "extensions-unsorted": _message(extensions="a2200018ff00"),
        "extensions-unsorted-length-first": _message(extensions="a261610018ff00"),
        "extensions-key-0": _message(extensions="a10000"),
        "extensions-key-bytes": _message(extensions="a1410000"),
        "extensions-key-empty-text": _message(extensions="a16000"),
        "extensions-key-256-octets": _message(extensions="a1790100" + "6b" * 256 + "00"),
        "extensions-key-256-octets-127-letters": _message(extensions="a1790100" + "c3a4" * 128 + "00"),
        "extensions-key-null": _message(extensions="a1f600"),
        "extensions-key-true": _message(extensions="a1f500"),
        "extensions-key-float": _message(extensions="a1f93c0000"),
        "extensions-key-array": _message(extensions="a1800000"),
        "extensions-key-2-53": _message(extensions="a11b002000000000000000"),
        "extensions-key-minus-2-53": _message(extensions="a13b001fffffffffffff00"),
        "extensions-nested-key-true": _message(extensions="a120a1f500"),
        "extensions-nested-duplicate": _message(extensions="a120a20100" + "0101"),
        "extensions-five-levels": _message(extensions="a12081818100"[:-2] + "80"),
        "extensions-five-levels-tag": _message(extensions="a120818181c100"),
        "extensions-sender-number": _message(extensions="a10101"),
        "extensions-room-bytes": _message(extensions="a10240"),
    }


def _values() -> dict[str, str]:
    """What is wrong with a value or one of our own extensions."""
    return {
        "value-float-not-shortest": _message(extensions="a120fa3fc00000"),
        "value-double-not-shortest": _message(extensions="a120fb3ff8000000000000"),
        "value-nan-payload": _message(extensions="a120f97e01"),
        "value-nan-long": _message(extensions="a120fa7fc00000"),
        "value-nan-sign": _message(extensions="a120f9fe00"),
        "value-simple-not-shortest": _message(extensions="a120f814"),
        "value-simple-reserved": _message(extensions="a120f81f"),
        "value-reserved-form": _message(extensions="a1201c"),
        "value-break": _message(extensions="a120ff"),
        "value-bignum-small": _message(extensions="a120c24101"),
        "value-bignum-zero": _message(extensions="a120c249" + "00" + "ff" * 8),
        "value-bignum-text": _message(extensions="a120c2" + "69" + "61" * 9),
        "value-tag-not-shortest": _message(extensions="a120d801" + "00"),
        "value-text-not-utf8": _message(extensions="a12061ff"),
        "value-text-surrogate": _message(extensions="a12063eda080"),
        "value-text-overlong": _message(extensions="a12062c0af"),
        "value-text-split": _message(extensions="a1206ac3"),
        "value-array-of-billions": _message(extensions="a1209affffffff"),
        "value-bytes-of-exabytes": _message(extensions="a1205b7fffffffffffffff"),
        "value-map-of-exabytes": _message(extensions="a120bbffffffffffffffff"),
        "clinical-null": _message(extensions="a1391068f6"),
        "clinical-number": _message(extensions="a139106802"),
        "clinical-empty": _message(extensions="a1391068a0"),
        "clinical-text-for-number": _message(extensions="a1391068a1016132"),
        "clinical-true-for-number": _message(extensions="a1391068a101f5"),
        "clinical-negative": _message(extensions="a1391068a10120"),
        "clinical-over-2-53": _message(extensions="a1391068a1011b0020000000000000"),
        "clinical-number-for-text": _message(extensions="a1391070a10101"),
        "picture-map": _message(extensions="a1391071a3010002010301"),
        "picture-without-height": _message(extensions="a139107181a201000201"),
    }


def _parts() -> dict[str, str]:
    """What is wrong with the body."""
    many = "85016003029904" + "01" + _NULL * 1025
    return {
        "body-null": _message(body="f6"),
        "body-empty": _message(body="80"),
        "body-two": _message(body="820160"),
        "body-disposition-256": _message(body="83190100" + "6000"),
        "body-disposition-negative": _message(body="83206000"),
        "body-disposition-true": _message(body="83f56000"),
        "body-language-null": _message(body="8301f600"),
        "body-cardinality-4": _message(body="83016004"),
        "body-cardinality-null": _message(body="830160f6"),
        "null-with-content": _message(body="8401600040"),
        "single-without-content": _message(body="8401600160"),
        "single-with-more": _message(body="86016001604000"),
        "single-content-text": _message(body="85016001606178"),
        "single-type-bytes": _message(body="85016001404178"),
        "external-without-filename": _message(body="8e" + _EXT[2:] + "0000004040400040" + "60"),
        "external-without-url": _message(body=_EXT[:-4] + "60" + "0000004040400040" + "6060"),
        "external-url-bytes": _message(body=_EXT[:-4] + "4175" + "0000004040400040" + "6060"),
        "external-expires-33-bits": _message(body=_EXT + "1b0000000100000000" + "00004040400040" + "6060"),
        "external-size-negative": _message(body=_EXT + "0020004040400040" + "6060"),
        "external-size-2-53": _message(body=_EXT + "00" + "1b0020000000000000" + "004040400040" + "6060"),
        "external-cipher-65536": _message(body=_EXT + "0000" + "1a00010000" + "4040400040" + "6060"),
        "external-hash-256": _message(body=_EXT + "000000404040" + "190100" + "40" + "6060"),
        "external-key-without-cipher": _message(body=_EXT + "000000" + "4101" + "40400040" + "6060"),
        "external-nonce-without-cipher": _message(body=_EXT + "00000040" + "4101" + "400040" + "6060"),
        "external-aad-without-cipher": _message(body=_EXT + "0000004040" + "4101" + "0040" + "6060"),
        "external-filename-null": _message(body=_EXT + "0000004040400040" + "60f6"),
        "multi-none": _message(body="85016003" + "0280"),
        "multi-one": _message(body="85016003" + "0281" + _NULL),
        "multi-semantics-3": _message(body="85016003" + "0382" + _NULL + _NULL),
        "multi-semantics-true": _message(body="85016003" + "f582" + _NULL + _NULL),
        "multi-parts-null": _message(body="85016003" + "02f6"),
        "multi-five-levels": _message(body=_nested(5)),
        "multi-forty-levels": _message(body=_nested(40)),
        "parts-1026": _message(body=many),
    }


def messages() -> dict[str, tuple[str, str]]:
    """Bytes (hex) that no side may accept, and the error code, by name."""
    found = {**_envelopes(), **_extensions(), **_values(), **_parts()}
    listed = {name: (data, MALFORMED) for name, data in found.items()}
    room = MESSAGE_BYTES - len(bytes.fromhex(_message(body="85016001605a00000000")))
    listed["too-large"] = (_message(body="8501600160" + "5a" + f"{room + 1:08x}" + "00" * (room + 1)), "too_large")
    listed["too-large-garbage"] = ("ff" * (MESSAGE_BYTES + 1), "too_large")
    return listed


def reports() -> dict[str, str]:
    """Reports (hex) that are malformed, by name."""
    one = "825820" + TARGET.hex()
    return {
        "empty": "80",
        "no-list": one + "01",
        "map": "a0",
        "id-31": "8182581f" + "01" * 31 + "01",
        "id-text": "81827820" + "61" * 32 + "01",
        "status-256": "81" + one + "190100",
        "status-negative": "81" + one + "20",
        "status-true": "81" + one + "f5",
        "status-missing": "8181" + "5820" + TARGET.hex(),
        "status-twice": "81" + "835820" + TARGET.hex() + "0101",
        "nested": "8181" + one + "01",
        "trailing": "81" + one + "0100",
        "not-shortest": "81" + one + "1801",
    }


CBOR_VALID: Final = """\
    00 01 0a 17 1818 1819 1864 1903e8 1a000f4240 1b000000e8d4a51000 1b001fffffffffffff 1b0020000000000000
    1bffffffffffffffff 20 29 3863 3903e7 3b001ffffffffffffe 3b001fffffffffffff 3bffffffffffffffff
    c249010000000000000000 c349010000000000000000 f90000 f98000 f93c00 fb3ff199999999999a f93e00 f97bff fa47c35000
    fa7f7fffff fb7e37e43c8800759c f90001 f90400 f9c400 fbc010666666666666 f97c00 f97e00 f9fc00 fa33000000 f90002
    fa38801000 fa47800000 f903ff f983ff fa00000001 fb0000000000000001 f4 f5 f6 f7 e0 f3 f820 f8ff c11a514b67b0
    d74401020304 d818456449455446 d8ff00 dbffffffffffffffff00 40 4401020304 60 6161 6449455446 62225c 62c3bc
    63e6b0b4 64f0908591 63efbbbf 6100 80 83010203 8301820203820405 a0 a201020304 a26161016162820203 a30a00186400200a
    a3010041610061610a
"""
"""RFC 8949 appendix A and what lies between: deterministic, so it must be taken and written back the same."""

CBOR_INVALID: Final = """\
    1817 1900ff 1a0000ffff 1b00000000ffffffff 3817 3900ff 5800 7800 9800 b800 d801 f800 f818 f81f fa3f800000
    fb3ff0000000000000 fa47000000 fb47efffffe0000000 fa7f800000 fb7ff0000000000000 fa7fc00000 fb7ff8000000000000
    f97e01 f9fe00 f97d00 5f42010243030405ff 7fff 9fff bfff ff 1c 1d 1e 1f 3c 5c 7c 9c bc dc fc fd fe 41 61 81 a1
    a100 18 19 1900 1a000000 1b00000000000000 f9 f900 fa000000 fb00000000000000 c0 61ff 62c328 63eda080 64f4908080
    62c0af a2010001 a201000100 a202000100 a2616200616100 a26161001864 a1180000 a1800000 a1f400 a1f90000 a1c000
    a1e000 c240 c24100 c24101 c248ffffffffffffffff c24900ffffffffffffffff c200 c34100 a11b002000000000000000
    a13b001fffffffffffff00 0000 f6f6
"""
"""Cut, long-winded, unsorted, reserved."""
