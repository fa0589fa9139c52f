"""The bus's own rules: who can read and make messages, what is told together, which settings are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, DecryptionFailed
from curbside.ids import ConversationId, DeviceId
from curbside.server.bus import BusMessage, EntriesAdded, Hello, QueueFilled, decode_message, encode_message
from curbside.server.bus_nats import LARGE_ENTRY, MERGED_BYTES, merge_entries
from curbside.server.bus_sealing import SENDERS_KEPT, BusSealer
from curbside.server.bus_settings import NatsSettings, read_credentials
from curbside.server.node_settings import Bus

KEY = SecretBytes(bytes(range(32)))
WARD, CLINIC = ConversationId("A" * 22), ConversationId("B" * 22)


def added(first: int, count: int = 1, name: ConversationId = WARD, size: int = 3) -> EntriesAdded:
    return EntriesAdded(name, first, first + count - 1, [bytes(size)] * count, is_handshake=False)


def test_every_node_of_a_database_opens_what_another_sealed() -> None:
    alice, bob = BusSealer(KEY), BusSealer(KEY)
    subject = f"{alice.prefix}.c.{alice.hide(WARD)}"
    assert subject == f"{bob.prefix}.c.{bob.hide(WARD)}"
    sealed = [alice.seal(subject, b"the same") for _ in range(3)]
    assert len(set(sealed)) == 3
    assert [bob.open(subject, each) for each in (*sealed, sealed[0])] == [b"the same"] * 4
    assert WARD.encode() not in b"".join(sealed)
    assert WARD not in subject


def test_nobody_else_reads_or_makes_a_message() -> None:
    node, stranger = BusSealer(KEY), BusSealer(SecretBytes(bytes(32)))
    assert node.prefix != stranger.prefix
    subject = f"{node.prefix}.n"
    sealed = node.seal(subject, b"hello")
    flipped = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for subject_given, data in (
        *((subject, each) for each in flipped),
        *((subject, sealed[:length]) for length in range(len(sealed))),
        (f"{node.prefix}.d.x", sealed),
        (subject, stranger.seal(subject, b"hello")),
    ):
        with pytest.raises(DecryptionFailed):
            BusSealer(KEY).open(subject_given, data)
    with pytest.raises(DecryptionFailed):
        stranger.open(subject, sealed)


def test_a_sealer_remembers_a_bounded_number_of_senders() -> None:
    hearer = BusSealer(KEY)
    for _ in range(SENDERS_KEPT + 5):
        assert hearer.open("n", BusSealer(KEY).seal("n", b"x")) == b"x"
    assert len(hearer._senders) == SENDERS_KEPT


def test_entries_that_follow_one_another_are_told_together() -> None:
    hello, queue = Hello("node", is_leaving=False), QueueFilled(DeviceId("d"))
    told: list[BusMessage] = [added(5), hello, added(6), added(1, name=CLINIC), queue, added(7)]
    assert merge_entries(told) == [added(5, 3), hello, added(1, name=CLINIC), queue]
    assert merge_entries([added(5), added(7)]) == [added(5), added(7)], "a gap"
    assert merge_entries([added(5), added(5)]) == [added(5), added(5)], "the same twice"
    handshake = EntriesAdded(WARD, 6, 6, [], is_handshake=True)
    assert merge_entries([added(5), handshake, added(7)]) == [added(5), handshake, added(7)]


def test_a_large_entry_is_told_by_its_number() -> None:
    (told,) = merge_entries([added(5, size=LARGE_ENTRY + 1)])
    assert told == EntriesAdded(WARD, 5, 5, [], is_handshake=False)
    both = merge_entries([added(5, size=LARGE_ENTRY + 1), added(6)])
    assert both == [told, added(6)]
    count = MERGED_BYTES // LARGE_ENTRY + 1
    merged = merge_entries([added(number, size=LARGE_ENTRY) for number in range(count)])
    assert len(merged) == 2
    assert all(len(encode_message(each)) <= MERGED_BYTES + 1024 for each in merged)


def test_messages_come_back_as_they_were() -> None:
    for message in (added(5, 3), Hello("node", is_leaving=True), QueueFilled(DeviceId("d"))):
        assert decode_message(encode_message(message)) == message


def test_settings_that_cannot_work_are_refused() -> None:
    for bad in (
        "http://x",
        "127.0.0.1:4222",
        "nats://",
        "nats://[",
        "tls://x,nats://localhost",
        "nats://x:y",
        "nats://far.example,ws://x",
        "nats://u:secret@far.example",
    ):
        with pytest.raises(ConfigError) as refused:
            NatsSettings(SecretBytes(bad.encode())).check()
        assert "secret" not in refused.value.detail
        assert "far" not in refused.value.detail
    for good in (
        "nats://127.0.0.1:4222",
        "nats://u:p@localhost:4222, nats://far.example:4222",
        "tls://u:p@far.example",
    ):
        NatsSettings(SecretBytes(good.encode())).check()
    assert "p@ss" not in repr(NatsSettings(SecretBytes(b"nats://u:p@ss@x")))
    for wrong in (
        {"poll_seconds": 0.0},
        {"sweep_seconds": 4.5},
        {"poll_seconds": 2.0, "sweep_seconds": 1.0},
        {"certificate": Path("x")},
        {"nats": SecretBytes(b"tls://x"), "ca": Path("/nowhere")},
        {"nats": SecretBytes(b"tls://x"), "credentials": Path("/nowhere")},
    ):
        with pytest.raises(ConfigError):
            Bus(**wrong).check()  # type: ignore[arg-type]


def test_credentials_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bus.creds"
    head, seed = "-----BEGIN NATS USER JWT-----\neyJ.x\n------END NATS USER JWT------\n", "SUAAAA"
    for text in ("", head, head + f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"):
        file.write_text(text)
        with pytest.raises(ConfigError) as refused:
            read_credentials(file)
        assert seed not in refused.value.detail
