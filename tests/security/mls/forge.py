"""A malicious member's workshop: messages by hand, with real keys, from parts no honest member would put together.

`Commit` and `Welcome` forgeries are complete: unless a hook spoils one, receivers accept them. Two controls in
test_controls.py prove that, so that a refusal elsewhere is due to the hook and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from curbside.crypto import aead, hpke
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.suites import Suite
from curbside.mls.codec import u32, vector
from curbside.mls.extensions import RATCHET_TREE
from curbside.mls.group import Group, KeyPackageSecrets, OwnLeaf
from curbside.mls.key_package import LeafPlace, make_leaf, make_signer
from curbside.mls.key_schedule import (
    confirmation_tag,
    derive_epoch,
    derive_joiner_secret,
    derive_member_secret,
    derive_psk_secret,
    derive_welcome_key,
    membership_tag,
)
from curbside.mls.labels import encrypt_with_label, key_package_ref, sign_with_label
from curbside.mls.messages import (
    APPLICATION,
    COMMIT,
    EXTERNAL,
    MEMBER,
    PROPOSAL,
    WIRE_PRIVATE,
    WIRE_PUBLIC,
    AuthenticatedContent,
    Body,
    Commit,
    EncryptedGroupSecrets,
    FramedContent,
    GroupContext,
    GroupInfo,
    GroupSecrets,
    HpkeCiphertext,
    PrivateMessage,
    ProposalOrRef,
    PublicMessage,
    Sender,
    UpdatePath,
    Welcome,
    encode_message,
    parse_message,
)
from curbside.mls.nodes import Extension, Extensions, KeyPackage, LeafNode
from curbside.mls.proposals import Add, GroupContextExtensions, Proposal, PskId, Remove, Update
from curbside.mls.protection import seal_message, sender_data_key
from curbside.mls.secret_tree import APPLICATION as APPLICATION_RATCHET
from curbside.mls.secret_tree import HANDSHAKE, RatchetLimits
from curbside.mls.transcript import PublicState, confirmed_hash
from curbside.mls.tree import RatchetTree
from curbside.mls.treekem import PathDraft, next_path_secret, node_key_pair, seal_path

ANYTHING = RatchetLimits(max_forward=2**32, max_skipped=0)
Change = Callable[[Any], Any]


def same(value: Any) -> Any:
    """The hook that changes nothing."""
    return value


def flip(data: bytes, bit: int = 0) -> bytes:
    """The bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


def signer_of(group: Group) -> Signer:
    """A member's signer."""
    epoch = group.state.current
    return make_signer(epoch.public.suite, epoch.leaf)


def sign_leaf(suite: Suite, leaf: LeafNode, signer: Signer, place: tuple[bytes, int]) -> LeafNode:
    """The leaf as it stands in its fields, signed anew."""
    bare = replace(leaf, raw=b"", signature=b"")
    signature = sign_with_label(signer, b"LeafNodeTBS", bare.to_be_signed(*place))
    return replace(bare, signature=signature, raw=bare.encode_unsigned() + vector(signature))


def sign_package(package: KeyPackage, own: OwnLeaf, kind: Suite, /, **changes: Any) -> KeyPackage:
    """The KeyPackage with other fields, signed anew; `leaf` may be a change of fields of its leaf."""
    leaf_changes = changes.pop("leaf_changes", None)
    signer = make_signer(kind, own)
    if leaf_changes is not None:
        changes["leaf"] = sign_leaf(kind, replace(package.leaf, **leaf_changes), signer, (b"", 0))
    bare = replace(package, **changes, raw=b"", signature=b"")
    signature = sign_with_label(signer, b"KeyPackageTBS", bare.encode_unsigned())
    return replace(bare, signature=signature, raw=bare.encode_unsigned() + vector(signature))


# --- commits --------------------------------------------------------------------------------------


@dataclass
class CommitForgery:
    """What goes into a forged commit. Hooks get the honest value and give back what is sent.

    items: proposals by value or references. effects: (proposal, sender's leaf) that the tree shall show; by default
    the items by value. leaf: on the unsigned new leaf. leaf_signature, tag, membership: on finished values.
    keys: on the new public keys of the path. path: on the finished UpdatePath. psks: ids with their secrets.
    """

    items: Sequence[ProposalOrRef] = ()
    effects: Sequence[tuple[Proposal, int]] | None = None
    with_path: bool = True
    leaf: Change = same
    leaf_signer: Signer | None = None
    leaf_signature: Change = same
    keys: Change = same
    parent_hash: Change = same
    path: Change = same
    context: Change = same
    sender: Sender | None = None
    signer: Signer | None = None
    signature: Change = same
    tag: Change = same
    membership: Change = same
    private: bool = False
    psks: Sequence[tuple[PskId, bytes]] = ()


@dataclass
class Forged:
    """A forged commit with what its author knows of the next epoch."""

    message: bytes
    tree: RatchetTree
    context: GroupContext
    joiner: bytes
    member: bytes
    tag: bytes
    path_secrets: dict[int, bytes]


@dataclass
class _Work:
    tree: RatchetTree
    extensions: Extensions
    added: list[int] = field(default_factory=list)


def _apply(public: PublicState, effects: Sequence[tuple[Proposal, int]]) -> _Work:
    work = _Work(public.tree.copy(), public.context.extensions)
    for proposal, sender in effects:
        if isinstance(proposal, GroupContextExtensions):
            work.extensions = proposal.extensions
        elif isinstance(proposal, Update):
            work.tree.update_leaf(sender, proposal.leaf)
        elif isinstance(proposal, Remove) and work.tree.find_leaf(proposal.removed):
            work.tree.remove_leaf(proposal.removed)
    work.tree.truncate()
    adds = [proposal for proposal, _ in effects if isinstance(proposal, Add)]
    work.added = [work.tree.add_leaf(add.key_package.leaf) for add in adds]
    return work


def _forge_path(group: Group, tree: RatchetTree, forgery: CommitForgery) -> PathDraft:
    epoch = group.state.current
    suite, own = epoch.public.suite, epoch.own
    filtered = tuple(tree.filtered_path(own))
    secrets, private, keys = {}, {}, []
    secret = random_bytes(suite.hash_length)
    for node, _ in filtered:
        secrets[node] = secret
        private[node], key = node_key_pair(suite, secret)
        keys.append(key)
        secret = next_path_secret(suite, secret)
    keys = forgery.keys(keys)
    parent_hash = forgery.parent_hash(tree.set_path(own, keys))
    _, leaf_key = hpke.generate_key_pair(suite.hpke.kem)
    place = LeafPlace.for_commit(group.group_id, own, parent_hash)
    signer = forgery.leaf_signer or signer_of(group)
    leaf = forgery.leaf(make_leaf(suite, epoch.leaf, signer, leaf_key, place))
    leaf = sign_leaf(suite, leaf, signer, (group.group_id, own))
    spoilt = forgery.leaf_signature(leaf.signature)
    if spoilt != leaf.signature:
        leaf = replace(leaf, signature=spoilt, raw=leaf.encode_unsigned() + vector(spoilt))
    tree.put_leaf(own, leaf)
    return PathDraft(leaf, filtered, tuple(keys), secrets, private, secret)


def forge_commit(group: Group, forgery: CommitForgery | None = None, **hooks: Any) -> Forged:
    """A commit of a member for the present epoch, whose own state stays where it is."""
    forgery = forgery or CommitForgery(**hooks)
    epoch = group.state.current
    public, suite = epoch.public, epoch.public.suite
    effects = forgery.effects
    if effects is None:
        effects = [(item, epoch.own) for item in forgery.items if not isinstance(item, bytes)]
    work = _apply(public, effects)
    path: UpdatePath | None = None
    commit_secret, path_secrets = bytes(suite.hash_length), {}
    context = public.context
    following = min(context.epoch + 1, 2**64 - 1)
    if forgery.with_path and work.tree.find_leaf(epoch.own):
        draft = _forge_path(group, work.tree, forgery)
        provisional = replace(context, epoch=following, tree_hash=work.tree.tree_hash(), extensions=work.extensions)
        path = forgery.path(seal_path(work.tree, draft, frozenset(work.added), provisional.encode()))
        commit_secret, path_secrets = draft.commit_secret, draft.secrets
    wire = WIRE_PRIVATE if forgery.private else WIRE_PUBLIC
    sent = forgery.context(context)
    sender = forgery.sender or Sender(MEMBER, epoch.own)
    content = FramedContent.make((sent.group_id, sent.epoch), sender, b"", COMMIT, Commit(tuple(forgery.items), path))
    signed = _sign(group, AuthenticatedContent(wire, content, b""), forgery.signer, forgery.signature, sent.encode())
    after = replace(context, epoch=following, tree_hash=work.tree.tree_hash(), extensions=work.extensions)
    after = replace(after, transcript_hash=confirmed_hash(suite, public.interim_hash, signed))
    joiner = derive_joiner_secret(suite, epoch.secrets.init, commit_secret, after.encode())
    member = derive_member_secret(suite, joiner, derive_psk_secret(suite, forgery.psks))
    secrets, _ = derive_epoch(suite, member, after.encode())
    tag = confirmation_tag(suite, secrets, after.transcript_hash)
    signed = replace(signed, confirmation_tag=forgery.tag(tag))
    message = frame(group, signed, forgery.membership)
    return Forged(message, work.tree, after, joiner, member, tag, path_secrets)


def _sign(
    group: Group, content: AuthenticatedContent, signer: Signer | None, change: Change, context: bytes
) -> AuthenticatedContent:
    key = signer or signer_of(group)
    return replace(content, signature=change(sign_with_label(key, b"FramedContentTBS", content.to_be_signed(context))))


def frame(group: Group, signed: AuthenticatedContent, membership: Change = same, skip: int = 0) -> bytes:
    """An MLSMessage around signed content; the member's own ratchets do not move.

    Args: `skip` how many generations to leave out.
    """
    epoch = group.state.current
    content = signed.content
    if signed.wire == WIRE_PRIVATE:
        kind = HANDSHAKE if content.content_type in (PROPOSAL, COMMIT) else APPLICATION_RATCHET
        leaf = content.sender.index if epoch.public.tree.find_leaf(content.sender.index) else epoch.own
        generation = epoch.tree.next_generation(leaf, kind) + skip
        plan = epoch.tree.plan(leaf, kind, generation, ANYTHING, 0)
        return encode_message(seal_message(epoch.keys(), plan, signed, lambda length: length))
    tag = b""
    if content.sender.kind == MEMBER:
        public = epoch.public
        tag = membership(membership_tag(public.suite, epoch.secrets, signed, public.encoded_context))
    return encode_message(PublicMessage(signed, tag))


# --- proposals and other content ------------------------------------------------------------------


@dataclass
class ContentForgery:
    """What goes into a forged message that is no commit."""

    sender: Sender | None = None
    signer: Signer | None = None
    signature: Change = same
    membership: Change = same
    context: Change = same
    private: bool = False
    skip: int = 0


def forge_content(group: Group, content_type: int, body: Body, **hooks: Any) -> bytes:
    """A proposal or application message, signed with the member's key unless a hook says otherwise."""
    forgery = ContentForgery(**hooks)
    context = forgery.context(group.state.current.public.context)
    sender = forgery.sender or Sender(MEMBER, group.own_leaf)
    wire = WIRE_PRIVATE if forgery.private else WIRE_PUBLIC
    content = FramedContent.make((context.group_id, context.epoch), sender, b"", content_type, body)
    bare = AuthenticatedContent(wire, content, b"")
    signed = _sign(group, bare, forgery.signer, forgery.signature, context.encode())
    return frame(group, signed, forgery.membership, forgery.skip)


def forge_proposal(group: Group, proposal: Proposal, **hooks: Any) -> bytes:
    """A proposal message."""
    return forge_content(group, PROPOSAL, proposal, **hooks)


def external_proposal(group: Group, proposal: Proposal, key: SecretBytes, index: int = 0, **hooks: Any) -> bytes:
    """A proposal of an external sender."""
    signer = Signer("ed25519", key)
    return forge_content(group, PROPOSAL, proposal, sender=Sender(EXTERNAL, index), signer=signer, **hooks)


def new_update_leaf(group: Group, change: Change = same) -> LeafNode:
    """A leaf for an Update of a member, whose private key is thrown away."""
    epoch = group.state.current
    suite = epoch.public.suite
    _, key = hpke.generate_key_pair(suite.hpke.kem)
    place = LeafPlace.for_update(group.group_id, epoch.own)
    leaf = change(make_leaf(suite, epoch.leaf, signer_of(group), key, place))
    return sign_leaf(suite, leaf, signer_of(group), (group.group_id, epoch.own))


# --- Welcomes -------------------------------------------------------------------------------------


@dataclass
class WelcomeForgery:
    """What goes into a forged Welcome. `tree` may change the tree before it is hashed, `encoded_tree` its bytes."""

    tree: Change = same
    encoded_tree: Change = same
    with_tree: bool = True
    context: Change = same
    info: Change = same
    signer: Signer | None = None
    signature: Change = same
    secrets: Change = same
    psks: Sequence[tuple[PskId, bytes]] = ()
    welcome: Change = same
    tag: Change = same
    plaintext: Change = same
    epoch: int | None = None


def forge_welcome(group: Group, package: KeyPackageSecrets, **hooks: Any) -> bytes:
    """A Welcome for a KeyPackage into a made-up next epoch of a member's group."""
    forgery = WelcomeForgery(**hooks)
    epoch = group.state.current
    suite = epoch.public.suite
    tree = epoch.public.tree.copy()
    tree.add_leaf(package.package.leaf)
    tree = forgery.tree(tree)
    number = group.epoch + 1 if forgery.epoch is None else forgery.epoch
    context = replace(epoch.public.context, epoch=number, tree_hash=tree.tree_hash(), transcript_hash=random_bytes(32))
    context = forgery.context(context)
    joiner = random_bytes(suite.hash_length)
    member = derive_member_secret(suite, joiner, derive_psk_secret(suite, forgery.psks))
    secrets, _ = derive_epoch(suite, member, context.encode())
    tag = forgery.tag(confirmation_tag(suite, secrets, context.transcript_hash))
    with_tree = (Extension(RATCHET_TREE, forgery.encoded_tree(tree.encode())),) if forgery.with_tree else ()
    info = forgery.info(GroupInfo(context, with_tree, tag, epoch.own))
    signature = sign_with_label(forgery.signer or signer_of(group), b"GroupInfoTBS", info.encode_unsigned())
    info = replace(info, signature=forgery.signature(signature))
    key, nonce = derive_welcome_key(suite, member)
    sealed_info = aead.seal(suite.aead_name, key, nonce, info.encode(), b"")
    listed = forgery.secrets(GroupSecrets(joiner, None, tuple(psk for psk, _ in forgery.psks)))
    plaintext = forgery.plaintext(listed.encode())
    pair = encrypt_with_label(suite, package.package.init_key, b"Welcome", sealed_info, plaintext)
    reference = key_package_ref(suite, package.package.encode())
    entry = EncryptedGroupSecrets(reference, HpkeCiphertext(*pair))
    return encode_message(forgery.welcome(Welcome(suite.code, (entry,), sealed_info)))


def replace_external(message: bytes, leaf: OwnLeaf, group: Group, **changes: Any) -> bytes:
    """Somebody's external commit with other fields in its Commit, signed anew by the newcomer."""
    parsed = parse_message(message)
    assert isinstance(parsed, PublicMessage)
    old = parsed.authenticated.content
    assert isinstance(old.body, Commit)
    context = group.state.current.public.context
    body = replace(old.body, **changes)
    content = FramedContent.make((old.group_id, old.epoch), old.sender, old.aad, COMMIT, body)
    bare = replace(parsed.authenticated, content=content)
    signer = make_signer(group.state.current.public.suite, leaf)
    signature = sign_with_label(signer, b"FramedContentTBS", bare.to_be_signed(context.encode()))
    return encode_message(PublicMessage(replace(bare, signature=signature)))


def seal_plaintext(group: Group, content_type: int, plaintext: bytes, generation: int | None = None) -> bytes:
    """A PrivateMessage around any plaintext, with the member's next key, under any generation number."""
    epoch = group.state.current
    suite, context = epoch.public.suite, epoch.public.context
    kind = APPLICATION_RATCHET if content_type == APPLICATION else HANDSHAKE
    number = epoch.tree.next_generation(epoch.own, kind)
    plan = epoch.tree.plan(epoch.own, kind, number, ANYTHING, 0)
    head = PrivateMessage(context.group_id, context.epoch, content_type, b"", b"", b"").encode_head()
    ciphertext = aead.seal(suite.aead_name, plan.key, plan.nonce, plaintext, head + vector(b""))
    data = u32(epoch.own) + u32(number if generation is None else generation) + bytes(4)
    key, nonce = sender_data_key(suite, epoch.secrets.sender_data, ciphertext)
    sender_data = aead.seal(suite.aead_name, key, nonce, data, head)
    message = PrivateMessage(context.group_id, context.epoch, content_type, b"", sender_data, ciphertext)
    return encode_message(message)


def change_parent(tree: RatchetTree, **changes: Any) -> RatchetTree:
    """The tree with other fields in its first parent node."""
    node, value = next(tree.parents())
    tree._set(node, replace(value, **changes))
    return tree
