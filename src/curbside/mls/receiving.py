"""Following somebody else's commit with our secrets (RFC 9420 section 12.4.2). Secret side."""

from __future__ import annotations

from collections.abc import Mapping

from curbside.crypto.kdf import is_same
from curbside.errors import BadSignature
from curbside.mls.checks import Check, refuse
from curbside.mls.committing import keep_private
from curbside.mls.key_package import OwnLeaf
from curbside.mls.key_schedule import (
    confirmation_tag,
    derive_epoch,
    derive_joiner_secret,
    derive_member_secret,
    derive_psk_secret,
    open_external_init,
)
from curbside.mls.messages import AuthenticatedContent
from curbside.mls.secret_tree import SecretTree
from curbside.mls.state import EpochState, OwnUpdate
from curbside.mls.transcript import PublicState
from curbside.mls.transition import Step
from curbside.mls.treekem import Receiver, open_path
from curbside.mls.welcome import PskStore


def enter_epoch(
    epoch: EpochState,
    step: Step,
    signed: AuthenticatedContent,
    store: PskStore,
    own_updates: Mapping[bytes, OwnUpdate],
) -> EpochState:
    """The epoch after a commit that is checked publicly; changes nothing.

    Raises: DecryptionFailed; RuleBroken; BadSignature when the confirmation tag does not verify.
    """
    suite, applied = epoch.public.suite, step.applied
    private, leaf = _own_keys(epoch, step, own_updates)
    commit_secret = bytes(suite.hash_length)
    if step.path is not None:
        receiver = Receiver(epoch.own, private, applied.new_leaves)
        fresh, commit_secret = open_path(
            applied.tree, applied.committer, step.path, receiver, step.provisional.encode()
        )
        private.update(fresh)
    init_secret = epoch.secrets.init
    if applied.kem_output is not None:
        init_secret = open_external_init(suite, epoch.secrets, applied.kem_output)
    psk_secret = derive_psk_secret(suite, store.collect(applied.psks))
    context = step.context.encode()
    joiner = derive_joiner_secret(suite, init_secret, commit_secret, context)
    secrets, encryption = derive_epoch(suite, derive_member_secret(suite, joiner, psk_secret), context)
    tag = confirmation_tag(suite, secrets, step.context.transcript_hash)
    if not is_same(tag, signed.confirmation_tag):
        raise BadSignature
    public = PublicState.make(suite, step.context, applied.tree, tag)
    message_keys = SecretTree(suite, applied.tree.leaf_count, encryption)
    return EpochState(public, epoch.own, leaf, private, secrets, message_keys, applied.reinit)


def _own_keys(
    epoch: EpochState, step: Step, own_updates: Mapping[bytes, OwnUpdate]
) -> tuple[dict[int, bytes], OwnLeaf]:
    after = step.applied.tree
    private = keep_private(epoch.public.tree, after, epoch.private)
    if epoch.own not in step.applied.updated:
        return private, epoch.leaf
    node = after.find_leaf(epoch.own)
    update = own_updates.get(node.encryption_key) if node is not None else None
    if update is None:
        refuse(Check.PROPOSAL_KNOWN)
    private[2 * epoch.own] = update.private
    return private, update.leaf
