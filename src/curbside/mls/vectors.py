"""Runs the official MLS test vectors (mlswg/mls-implementations) against this package."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from curbside.crypto import hpke, kdf
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.suites import SUITES, Suite, get_suite
from curbside.errors import CurbsideError
from curbside.mls import key_schedule as schedule
from curbside.mls import labels, messages, tree_math
from curbside.mls.codec import Reader, decode, varint
from curbside.mls.group import Group, GroupSettings, JoinOptions, KeyPackageSecrets, OwnLeaf
from curbside.mls.key_package import LeafPlace, make_leaf
from curbside.mls.messages import AuthenticatedContent, GroupContext, parse_message
from curbside.mls.nodes import KeyPackage, LeafNode
from curbside.mls.proposals import PSK_EXTERNAL, Add, Proposal, PskId, Remove, Update, read_proposal
from curbside.mls.protection import EpochKeys, open_message, seal_message, sender_data_key
from curbside.mls.secret_tree import APPLICATION, HANDSHAKE, RatchetLimits, SecretTree
from curbside.mls.transcript import confirmed_hash, interim_hash
from curbside.mls.tree import RatchetTree
from curbside.mls.treekem import Receiver, derive_upwards, draft_path, node_key_pair, open_path, seal_path
from curbside.mls.trust import UnsafeAcceptAll
from curbside.mls.validation import Limits, check_parent_hashes, check_unmerged
from curbside.mls.welcome import PskStore, open_welcome, parse_welcome

Case = dict[str, Any]
_NOW: Final = 1_700_000_000
_UNLIMITED: Final = RatchetLimits(max_forward=2**31, max_skipped=64)
_SETTINGS: Final = GroupSettings(
    suites=tuple(SUITES), limits=Limits(max_lifetime=2**64), ratchets=_UNLIMITED, resumption_epochs=1000
)


class VectorFailed(AssertionError):
    """A vector's expected value is not what we compute."""


def _same(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise VectorFailed(f"{what}: got {found!r}, want {wanted!r}")


def _hex(case: Case, name: str) -> bytes:
    return bytes.fromhex(case[name])


def _suite(case: Case) -> Suite:
    return get_suite(case["cipher_suite"])


def run_tree_math(case: Case) -> None:
    """tree-math."""
    leaves = case["n_leaves"]
    _same(tree_math.node_count(leaves), case["n_nodes"], "n_nodes")
    top = tree_math.root(leaves)
    _same(top, case["root"], "root")
    for node in range(case["n_nodes"]):
        inner, below = node & 1, node != top
        _same(tree_math.left(node) if inner else None, case["left"][node], "left")
        _same(tree_math.right(node) if inner else None, case["right"][node], "right")
        _same(tree_math.parent(node) if below else None, case["parent"][node], "parent")
        _same(tree_math.sibling(node) if below else None, case["sibling"][node], "sibling")


def run_crypto_basics(case: Case) -> None:
    """crypto-basics."""
    suite = _suite(case)
    part = case["ref_hash"]
    _same(labels.ref_hash(suite, part["label"].encode(), _hex(part, "value")), _hex(part, "out"), "ref_hash")
    part = case["expand_with_label"]
    args = (part["label"].encode(), _hex(part, "context"), part["length"])
    _same(labels.expand_with_label(suite, _hex(part, "secret"), *args), _hex(part, "out"), "expand")
    part = case["derive_secret"]
    _same(labels.derive_secret(suite, _hex(part, "secret"), part["label"].encode()), _hex(part, "out"), "derive")
    part = case["derive_tree_secret"]
    place = (part["label"].encode(), part["generation"], part["length"])
    _same(labels.derive_tree_secret(suite, _hex(part, "secret"), *place), _hex(part, "out"), "derive_tree")
    part = case["sign_with_label"]
    label, content, public = part["label"].encode(), _hex(part, "content"), _hex(part, "pub")
    labels.verify_with_label(suite, public, label, content, _hex(part, "signature"))
    signer = Signer(suite.signature_name, SecretBytes(_hex(part, "priv")))
    _same(signer.public, public, "public key")
    labels.verify_with_label(suite, public, label, content, labels.sign_with_label(signer, label, content))
    part = case["encrypt_with_label"]
    label, context, plaintext = part["label"].encode(), _hex(part, "context"), _hex(part, "plaintext")
    private, public = _hex(part, "priv"), _hex(part, "pub")
    pair = (_hex(part, "kem_output"), _hex(part, "ciphertext"))
    _same(labels.decrypt_with_label(suite, private, label, context, pair), plaintext, "decrypt")
    pair = labels.encrypt_with_label(suite, public, label, context, plaintext)
    _same(labels.decrypt_with_label(suite, private, label, context, pair), plaintext, "encrypt and decrypt")


def run_deserialization(case: Case) -> None:
    """deserialization."""
    header = _hex(case, "vlbytes_header")
    _same(decode(header, Reader.varint), case["length"], "length")
    _same(varint(case["length"]), header, "header")


def run_messages(case: Case) -> None:
    """messages: everything decodes and encodes to the same bytes."""

    def proposal_of(code: int) -> Callable[[bytes], bytes]:
        def again(data: bytes) -> bytes:
            return decode(code.to_bytes(2, "big") + data, read_proposal).encode()

        return again

    def message(data: bytes) -> bytes:
        return messages.encode_message(parse_message(data))

    again: dict[str, Callable[[bytes], bytes]] = {
        "ratchet_tree": _tree_again,
        "group_secrets": lambda data: decode(data, messages.GroupSecrets.read).encode(),
        "commit": lambda data: decode(data, messages.Commit.read).encode(),
        "add_proposal": proposal_of(1),
        "update_proposal": proposal_of(2),
        "remove_proposal": proposal_of(3),
        "pre_shared_key_proposal": proposal_of(4),
        "re_init_proposal": proposal_of(5),
        "external_init_proposal": proposal_of(6),
        "group_context_extensions_proposal": proposal_of(7),
    }
    for name in case:
        data = _hex(case, name)
        _same(again.get(name, message)(data), data, name)


def _tree_again(data: bytes) -> bytes:
    tree = RatchetTree.parse(get_suite(1), data)
    return RatchetTree(tree.suite, tree.nodes).encode()


def run_key_schedule(case: Case) -> None:
    """key-schedule."""
    suite, init_secret = _suite(case), _hex(case, "initial_init_secret")
    for number, epoch in enumerate(case["epochs"]):
        hashes = (_hex(epoch, "tree_hash"), _hex(epoch, "confirmed_transcript_hash"))
        context = GroupContext(suite.code, _hex(case, "group_id"), number, *hashes, ()).encode()
        _same(context, _hex(epoch, "group_context"), "group_context")
        joiner = schedule.derive_joiner_secret(suite, init_secret, _hex(epoch, "commit_secret"), context)
        _same(joiner, _hex(epoch, "joiner_secret"), "joiner_secret")
        member = schedule.derive_member_secret(suite, joiner, _hex(epoch, "psk_secret"))
        _same(schedule.derive_welcome_secret(suite, member), _hex(epoch, "welcome_secret"), "welcome_secret")
        secrets, encryption = schedule.derive_epoch(suite, member, context)
        named = {
            "init_secret": secrets.init,
            "sender_data_secret": secrets.sender_data,
            "encryption_secret": encryption,
            "exporter_secret": secrets.exporter,
            "epoch_authenticator": secrets.authenticator,
            "external_secret": secrets.external,
            "confirmation_key": secrets.confirmation,
            "membership_key": secrets.membership,
            "resumption_psk": secrets.resumption,
            "external_pub": schedule.external_key_pair(suite, secrets)[1],
        }
        for name, value in named.items():
            _same(value, _hex(epoch, name), name)
        part = epoch["exporter"]
        args = (part["label"].encode(), _hex(part, "context"), part["length"])
        _same(schedule.export_secret(suite, secrets, *args), _hex(part, "secret"), "exporter")
        init_secret = secrets.init


def run_psk_secret(case: Case) -> None:
    """psk_secret."""
    psks = [
        (PskId(PSK_EXTERNAL, _hex(item, "psk_nonce"), _hex(item, "psk_id")), _hex(item, "psk")) for item in case["psks"]
    ]
    _same(schedule.derive_psk_secret(_suite(case), psks), _hex(case, "psk_secret"), "psk_secret")


def run_secret_tree(case: Case) -> None:
    """secret-tree."""
    suite, part = _suite(case), case["sender_data"]
    pair = sender_data_key(suite, _hex(part, "sender_data_secret"), _hex(part, "ciphertext"))
    _same(pair, (_hex(part, "key"), _hex(part, "nonce")), "sender data")
    tree = SecretTree(suite, len(case["leaves"]), _hex(case, "encryption_secret"))
    for leaf, steps in enumerate(case["leaves"]):
        for step in steps:
            for kind, name in ((HANDSHAKE, "handshake"), (APPLICATION, "application")):
                plan = tree.plan(leaf, kind, step["generation"], _UNLIMITED, 0)
                _same((plan.key, plan.nonce), (_hex(step, f"{name}_key"), _hex(step, f"{name}_nonce")), name)
                tree.spend(plan)


def run_transcript_hashes(case: Case) -> None:
    """transcript-hashes."""
    suite, commit = _suite(case), decode(_hex(case, "authenticated_content"), AuthenticatedContent.read)
    confirmed = confirmed_hash(suite, _hex(case, "interim_transcript_hash_before"), commit)
    _same(confirmed, _hex(case, "confirmed_transcript_hash_after"), "confirmed")
    interim = interim_hash(suite, confirmed, commit.confirmation_tag)
    _same(interim, _hex(case, "interim_transcript_hash_after"), "interim")
    tag = kdf.compute_mac(suite.hash_name, _hex(case, "confirmation_key"), confirmed)
    _same(tag, commit.confirmation_tag, "confirmation_tag")


def run_message_protection(case: Case) -> None:
    """message-protection: leaf 1 of 2 sends."""
    suite = _suite(case)
    hashes = (_hex(case, "tree_hash"), _hex(case, "confirmed_transcript_hash"))
    context = GroupContext(suite.code, _hex(case, "group_id"), case["epoch"], *hashes, ()).encode()
    public = _hex(case, "signature_pub")
    membership = _hex(case, "membership_key")

    def keys() -> EpochKeys:
        tree = SecretTree(suite, 2, _hex(case, "encryption_secret"))
        return EpochKeys(suite, context, _hex(case, "sender_data_secret"), tree, lambda leaf: public)

    for name in ("proposal", "commit", "application"):
        message = parse_message(_hex(case, f"{name}_priv"))
        if not isinstance(message, messages.PrivateMessage):
            raise VectorFailed("not a PrivateMessage")
        opened = open_message(keys(), message, -1, _UNLIMITED, 0)
        body = opened.signed.content.body
        found = body if isinstance(body, bytes) else messages.encode_body(message.content_type, body)
        _same(found, _hex(case, name), name)
        sender = keys()
        plan = sender.tree.plan(1, APPLICATION if name == "application" else HANDSHAKE, 0, _UNLIMITED, 0)
        sealed = seal_message(sender, plan, opened.signed, lambda length: length + 7)
        again = open_message(keys(), sealed, -1, _UNLIMITED, 0).signed
        _same(again.content.raw, opened.signed.content.raw, "sealed and opened")
        if name != "application":
            _check_public(suite, _hex(case, f"{name}_pub"), (context, public, membership), _hex(case, name))


def _check_public(suite: Suite, data: bytes, keys: tuple[bytes, bytes, bytes], wanted: bytes) -> None:
    message, (context, public, membership) = parse_message(data), keys
    if not isinstance(message, messages.PublicMessage):
        raise VectorFailed("not a PublicMessage")
    signed = message.authenticated
    content = signed.to_be_signed(context)
    labels.verify_with_label(suite, public, b"FramedContentTBS", content, signed.signature)
    tag = kdf.compute_mac(suite.hash_name, membership, content + signed.encode_auth())
    _same(tag, message.membership_tag, "membership_tag")
    _same(messages.encode_body(signed.content.content_type, signed.content.body), wanted, "content")


def run_welcome(case: Case) -> None:
    """welcome."""
    suite, package = _suite(case), parse_message(_hex(case, "key_package"))
    if not isinstance(package, KeyPackage):
        raise VectorFailed("not a KeyPackage")
    own = OwnLeaf(package.leaf.credential, SecretBytes(b""))
    secrets = KeyPackageSecrets(package, own, SecretBytes(_hex(case, "init_priv")), SecretBytes(b""))
    opened = open_welcome(parse_welcome(_hex(case, "welcome")), [secrets], PskStore())
    info = opened.info
    unsigned = info.encode_unsigned()
    labels.verify_with_label(suite, _hex(case, "signer_pub"), b"GroupInfoTBS", unsigned, info.signature)
    epoch, _ = schedule.derive_epoch(suite, opened.member_secret, info.context.encode())
    tag = schedule.confirmation_tag(suite, epoch, info.context.transcript_hash)
    _same(tag, info.confirmation_tag, "confirmation_tag")


def run_tree_operations(case: Case) -> None:
    """tree-operations."""
    tree = RatchetTree.parse(_suite(case), _hex(case, "tree_before"))
    _same(tree.tree_hash(), _hex(case, "tree_hash_before"), "hash before")
    proposal: Proposal = decode(_hex(case, "proposal"), read_proposal)
    if isinstance(proposal, Add):
        tree.add_leaf(proposal.key_package.leaf)
    elif isinstance(proposal, Update):
        tree.update_leaf(case["proposal_sender"], proposal.leaf)
    elif isinstance(proposal, Remove):
        tree.remove_leaf(proposal.removed)
        tree.truncate()
    _same(tree.encode(), _hex(case, "tree_after"), "tree after")
    _same(tree.tree_hash(), _hex(case, "tree_hash_after"), "hash after")


def run_tree_validation(case: Case) -> None:
    """tree-validation."""
    suite, group_id = _suite(case), _hex(case, "group_id")
    tree = RatchetTree.parse(suite, _hex(case, "tree"))
    for node, (resolution, tree_hash) in enumerate(zip(case["resolutions"], case["tree_hashes"], strict=True)):
        _same(tree.resolution(node), resolution, "resolution")
        _same(tree.node_hash(node).hex(), tree_hash, "tree hash")
    check_parent_hashes(tree)
    check_unmerged(tree)
    for index, leaf in tree.leaves():
        tbs = leaf.to_be_signed(group_id, index)
        labels.verify_with_label(suite, leaf.signature_key, b"LeafNodeTBS", tbs, leaf.signature)


def run_treekem(case: Case) -> None:
    """treekem."""
    suite, tree = _suite(case), RatchetTree.parse(_suite(case), _hex(case, "ratchet_tree"))
    context = GroupContext(
        suite.code, _hex(case, "group_id"), case["epoch"], b"", _hex(case, "confirmed_transcript_hash"), ()
    )
    private: dict[int, dict[int, bytes]] = {}
    for item in case["leaves_private"]:
        keys = private[item["index"]] = {2 * item["index"]: _hex(item, "encryption_priv")}
        for step in item["path_secrets"]:
            key, public = node_key_pair(suite, _hex(step, "path_secret"))
            node = tree.nodes[step["node"]]
            _same(public, node.encryption_key if node else None, "public key")
            keys[step["node"]] = key
    for update in case["update_paths"]:
        _check_update_path(tree, update, context, private)
    for item in case["leaves_private"]:
        _check_own_path(tree, item, context, private)


def _check_update_path(tree: RatchetTree, update: Case, context: GroupContext, private: dict[int, Any]) -> None:
    path, sender = decode(_hex(update, "update_path"), messages.UpdatePath.read), update["sender"]
    merged = tree.copy()
    parent_hash = merged.set_path(sender, [node.encryption_key for node in path.nodes])
    _same(path.leaf.parent_hash, parent_hash, "parent hash")
    merged.put_leaf(sender, path.leaf)
    _same(merged.tree_hash(), _hex(update, "tree_hash_after"), "tree hash")
    check_parent_hashes(merged)
    encoded = replace(context, tree_hash=merged.tree_hash()).encode()
    for index, wanted in enumerate(update["path_secrets"]):
        if wanted is None:
            continue
        receiver = Receiver(index, private[index], ())
        keys, commit_secret = open_path(merged, sender, path, receiver, encoded)
        _same(commit_secret, _hex(update, "commit_secret"), "commit_secret")
        ancestor = tree_math.common_ancestor(sender, index)
        nodes = [node for node, _ in merged.filtered_path(sender) if node in keys]
        _same(nodes[0], ancestor, "first node")
        _same(derive_upwards(merged, nodes, bytes.fromhex(wanted))[0], keys, "path secrets")


def _check_own_path(tree: RatchetTree, item: Case, context: GroupContext, private: dict[int, Any]) -> None:
    sender, fresh, suite = item["index"], tree.copy(), tree.suite
    old = tree.find_leaf(sender)
    if old is None:
        raise VectorFailed("the sender has no leaf")
    secret = SecretBytes(_hex(item, "signature_priv"))
    own = OwnLeaf(old.credential, secret, old.capabilities, old.extensions)

    def new_leaf(encryption_key: bytes, parent_hash: bytes) -> LeafNode:
        place = LeafPlace.for_commit(context.group_id, sender, parent_hash)
        return make_leaf(suite, own, Signer(suite.signature_name, secret), encryption_key, place)

    draft = draft_path(fresh, sender, new_leaf)
    encoded = replace(context, tree_hash=fresh.tree_hash()).encode()
    path = seal_path(fresh, draft, (), encoded)
    for index, keys in private.items():
        if index != sender:
            _, commit_secret = open_path(fresh, sender, path, Receiver(index, keys, ()), encoded)
            _same(commit_secret, draft.commit_secret, "own commit_secret")


def run_passive_client(case: Case) -> None:
    """passive-client-*: join by a Welcome and follow."""
    package = parse_message(_hex(case, "key_package"))
    if not isinstance(package, KeyPackage):
        raise VectorFailed("not a KeyPackage")
    own = OwnLeaf(package.leaf.credential, SecretBytes(_hex(case, "signature_priv")), package.leaf.capabilities)
    leaf_private, init_private = _hex(case, "encryption_priv"), _hex(case, "init_priv")
    kem = get_suite(case["cipher_suite"]).hpke.kem
    _same(hpke.public_key(kem, leaf_private), package.leaf.encryption_key, "encryption key")
    _same(hpke.public_key(kem, init_private), package.init_key, "init key")
    secrets = KeyPackageSecrets(package, own, SecretBytes(init_private), SecretBytes(leaf_private))
    psks = {_hex(item, "psk_id"): SecretBytes(_hex(item, "psk")) for item in case["external_psks"]}
    tree = None if case["ratchet_tree"] is None else _hex(case, "ratchet_tree")
    options = JoinOptions(tree=tree, psks=psks)
    group = Group.join(_hex(case, "welcome"), [secrets], UnsafeAcceptAll(), _NOW, _SETTINGS, options)
    _same(group.epoch_authenticator(), _hex(case, "initial_epoch_authenticator"), "first epoch")
    for epoch in case["epochs"]:
        for proposal in epoch["proposals"]:
            group.receive(bytes.fromhex(proposal), _NOW)
        group.receive(_hex(epoch, "commit"), _NOW, psks)
        _same(group.epoch_authenticator(), _hex(epoch, "epoch_authenticator"), "epoch")


_KINDS: Final[tuple[tuple[str, Callable[[Case], None]], ...]] = (
    # a key that only this kind of case has, and what runs it
    ("n_leaves", run_tree_math),
    ("ref_hash", run_crypto_basics),
    ("vlbytes_header", run_deserialization),
    ("mls_welcome", run_messages),
    ("initial_init_secret", run_key_schedule),
    ("psks", run_psk_secret),
    ("leaves", run_secret_tree),
    ("authenticated_content", run_transcript_hashes),
    ("proposal_priv", run_message_protection),
    ("signer_pub", run_welcome),
    ("tree_before", run_tree_operations),
    ("resolutions", run_tree_validation),
    ("update_paths", run_treekem),
    ("initial_epoch_authenticator", run_passive_client),
)


@dataclass(frozen=True, slots=True)
class FileResult:
    """How a file went; `failures` names the cases that failed, and why."""

    path: str
    passed: int
    total: int
    failures: tuple[str, ...]


def load_cases(path: str) -> list[Case]:
    """The cases of a .json or .json.xz file."""
    with open(path, "rb") as file:
        raw = file.read()
    text = lzma.decompress(raw) if raw[:6] == b"\xfd7zXZ\x00" else raw
    loaded = json.loads(text)
    return loaded if isinstance(loaded, list) else [loaded]


def run_case(case: Case) -> None:
    """Run one case of any kind, told by its keys. Raises: VectorFailed; CurbsideError."""
    for key, run in _KINDS:
        if key in case:
            run(case)
            return
    raise VectorFailed("no kind of vector has these keys: " + ", ".join(sorted(case)))


def run_file(path: str) -> FileResult:
    """Run all cases of a file."""
    cases, failures = load_cases(path), []
    for number, case in enumerate(cases):
        try:
            run_case(case)
        except (VectorFailed, CurbsideError) as error:
            failures.append(f"case {number}: {type(error).__name__}: {error}"[:300])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            failures.append(f"case {number}: cannot be run: {type(error).__name__}: {error}"[:300])
    return FileResult(path, len(cases) - len(failures), len(cases), tuple(failures))
