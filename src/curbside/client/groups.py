"""The MLS groups of one device: loaded from the vault, changed in memory, saved in the transaction that changed them.

When a transaction fails, memory may be ahead of the vault; `forget()` then drops what is loaded, so that the next
use reads the saved state again.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from curbside.client.rows import ConversationRow
from curbside.client.vault import Vault
from curbside.crypto.random import random_bytes
from curbside.errors import NotFound
from curbside.ids import ConversationId, encode_base64url, encode_id
from curbside.mls.group import CommitRequest, Group, GroupSettings, KeyPackageSecrets, OwnLeaf, make_key_package
from curbside.policy.validator import OrganizationValidator
from curbside.wire import bodies
from curbside.wire.group_policy import GroupPolicy

SUITE = 1


@dataclass(frozen=True)
class Member:
    """One device of a conversation, as its certificate chain says."""

    leaf: int
    user_id: str
    device_id: str
    name: str
    role: str
    device_label: str
    user_certificate: bytes


class Groups:
    """The groups of the device whose vault this is. All methods that change anything belong in a transaction."""

    def __init__(self, vault: Vault, leaf: OwnLeaf, validator: OrganizationValidator) -> None:
        self._vault = vault
        self._leaf = leaf
        self._validator = validator
        self._loaded: dict[str, Group] = {}

    def get(self, conversation: str) -> Group:
        """The group of a conversation. Raises: NotFound."""
        group = self._loaded.get(conversation)
        if group is None:
            row = self._vault.rows.get_conversation(conversation)
            group = self._loaded[conversation] = Group.load(row.mls, self._validator)
        return group

    def save(self, conversation: str) -> None:
        """Write a group's state to the vault."""
        self._vault.rows.save_group(conversation, self._loaded[conversation].save())

    def forget(self) -> None:
        """Drop what is loaded; the vault holds the truth."""
        self._loaded.clear()

    # --- key packages ----------------------------------------------------------------------

    def make_key_packages(self, count: int, now: int, *, last_resort: bool = False) -> list[bytes]:
        """New key packages, their private halves saved; as MLSMessages."""
        made = []
        for _ in range(count):
            package = make_key_package(self._leaf, SUITE, now=now, last_resort=last_resort)
            self._vault.rows.add_key_package(package.reference, package.save(), last_resort, now * 1000)
            made.append(package.public)
        return made

    # --- create, join ----------------------------------------------------------------------

    def create(self, policy: GroupPolicy, external_senders: bytes, title: str, now: int) -> bodies.NewConversation:
        """A new conversation with only this device in it; answers the request that tells the server."""
        raw = random_bytes(16)
        conversation = ConversationId(encode_id(raw))
        extensions = self._validator.group_extensions(policy, external_senders)
        group = Group.create(raw, self._leaf, SUITE, extensions, GroupSettings(), self._validator, now)
        self._loaded[conversation] = group
        self._add_row(conversation, group, policy.kind, title, 0, now)
        return bodies.NewConversation(conversation, encode_base64url(group.group_info()))

    def join(self, conversation: ConversationId, welcome: bytes, sequence: int, now: int) -> Group:
        """Enter a conversation by a Welcome; the key package that it used is forgotten.

        Raises: InvalidMessage errors; nothing has changed then.
        """
        saved = self._vault.rows.key_packages()
        packages = [KeyPackageSecrets.load(secrets) for _, secrets in saved]
        group = Group.join(welcome, packages, validator=self._validator, now=now)
        if encode_id(group.group_id) != conversation:
            raise NotFound("the Welcome is for another conversation")
        policy = self._validator.verify_group(group.extensions)
        self._loaded[conversation] = group
        self._add_row(conversation, group, policy.kind, "", sequence, now)
        if group.joined_with is not None:
            self._vault.rows.delete_key_package(group.joined_with)
        return group

    def _add_row(
        self, conversation: ConversationId, group: Group, kind: str, title: str, cursor: int, now: int
    ) -> None:
        self._vault.rows.add_conversation(
            ConversationRow(conversation, group.save(), kind, title, cursor, now * 1000, "", 0, "")
        )

    # --- commits ---------------------------------------------------------------------------

    def stage(self, conversation: str, request: CommitRequest, now: int) -> bodies.NewCommit:
        """Stage a commit and keep the request, so that a retry repeats the same bytes."""
        group = self.get(conversation)
        message_id = random_bytes(16)
        epoch = group.epoch
        staged = group.stage_commit(request, now)
        body = bodies.NewCommit(
            encode_base64url(message_id),
            epoch,
            encode_base64url(staged.commit),
            None if staged.welcome is None else encode_base64url(staged.welcome),
        )
        self.save(conversation)
        self._vault.rows.save_pending_commit(conversation, message_id, msgspec.json.encode(body))
        return body

    def pending(self, conversation: str) -> bodies.NewCommit | None:
        """The request of the staged commit, if there is one."""
        found = self._vault.rows.find_pending_commit(conversation)
        return None if found is None else msgspec.json.decode(found[1], type=bodies.NewCommit)

    def accept(self, conversation: str) -> None:
        """Our staged commit is in the log: enter its epoch."""
        self.get(conversation).commit_accepted()
        self._vault.rows.delete_pending_commit(conversation)
        self.save(conversation)

    def give_up(self, conversation: str) -> None:
        """Our staged commit lost, or was refused."""
        self.get(conversation).commit_rejected()
        self._vault.rows.delete_pending_commit(conversation)
        self.save(conversation)

    # --- who is in it ----------------------------------------------------------------------

    def members(self, conversation: str, now: int) -> list[Member]:
        """All devices of a conversation, in leaf order."""
        return [self._member(m.leaf_index, m.credential, m.signature_key, now) for m in self.get(conversation).members]

    def people(self, conversation: str, now: int) -> dict[str, Member]:
        """One member by user id for everybody in the conversation."""
        return {member.user_id: member for member in self.members(conversation, now)}

    def member(self, conversation: str, leaf: int, now: int) -> Member:
        """The device at a leaf. Raises: NotFound."""
        for m in self.get(conversation).members:
            if m.leaf_index == leaf:
                return self._member(m.leaf_index, m.credential, m.signature_key, now)
        raise NotFound("no device at that place of the conversation")

    def _member(self, leaf: int, credential: object, signature_key: bytes, now: int) -> Member:
        found = self._validator.identify(credential, signature_key, now)
        return Member(
            leaf, found.user_id, found.device_id, found.name, found.role, found.device_label, found.user_certificate
        )
