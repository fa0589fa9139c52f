"""The MLS groups of one device: loaded from the vault, changed in memory, saved in the transaction that changed them.

When a transaction fails, memory may be ahead of the vault; `forget()` then drops what is loaded, so that the next
use reads the saved state again.
"""

from __future__ import annotations

import msgspec

from curbside.client.rows import ConversationRow
from curbside.client.vault import Vault
from curbside.crypto.random import random_bytes
from curbside.errors import NotFound, RuleBroken
from curbside.ids import ConversationId, encode_base64url, encode_id
from curbside.mls.group import CommitRequest, Group, GroupSettings, KeyPackageSecrets, OwnLeaf, make_key_package
from curbside.mls.trust import Member as MlsMember
from curbside.policy.chain import VerifiedDevice
from curbside.policy.validator import OrganizationValidator, read_policy
from curbside.wire import bodies
from curbside.wire.group_policy import GroupPolicy

SUITE = 1
SETTINGS = GroupSettings(private_handshakes=False)
KEY_PACKAGE_SECONDS = 30 * 24 * 3600
LAST_RESORT_SECONDS = 80 * 24 * 3600
CLOCK_SLACK_SECONDS = 3600


class Groups:
    """The groups of the device whose vault this is. All methods that change anything belong in a transaction."""

    def __init__(self, vault: Vault, leaf: OwnLeaf, validator: OrganizationValidator) -> None:
        self._vault = vault
        self._leaf = leaf
        self._validator = validator
        self._loaded: dict[str, Group] = {}
        self._changed: set[str] = set()
        self._people: dict[str, tuple[int, dict[str, VerifiedDevice]]] = {}

    def get(self, conversation: str) -> Group:
        """The group of a conversation. Raises: NotFound."""
        group = self._loaded.get(conversation)
        if group is None:
            row = self._vault.rows.get_conversation(conversation)
            group = self._loaded[conversation] = Group.load(row.mls, self._validator)
        return group

    def save(self, conversation: str) -> None:
        """A group has changed: it is written before the step ends, once however often it changes till then."""
        self._changed.add(conversation)

    def write_changed(self) -> None:
        """Write the state of every group that has changed to the vault; the last thing in a step's transaction."""
        for conversation in sorted(self._changed):
            self._vault.rows.save_group(conversation, self._loaded[conversation].save())
        self._changed.clear()

    def drop(self, conversation: str) -> None:
        """After a refusal in the middle of a step: the next use reads the group as it was saved."""
        self.write_changed()
        self._loaded.pop(conversation, None)
        self._people.pop(conversation, None)

    def forget(self) -> None:
        """After a step that failed: drop what is loaded; the vault holds the truth."""
        self._loaded.clear()
        self._changed.clear()
        self._people.clear()

    # --- key packages ----------------------------------------------------------------------

    def make_key_packages(self, count: int, now: int, *, last_resort: bool = False) -> list[bytes]:
        """New key packages, their private halves saved; as MLSMessages."""
        made = []
        for _ in range(count):
            seconds = LAST_RESORT_SECONDS if last_resort else KEY_PACKAGE_SECONDS
            package = make_key_package(self._leaf, SUITE, (now - CLOCK_SLACK_SECONDS, now + seconds))
            self._vault.rows.add_key_package(package.reference, package.save(), last_resort, now * 1000)
            made.append(package.public)
        return made

    # --- create, join ----------------------------------------------------------------------

    def create(self, policy: GroupPolicy, title: str, now: int) -> bodies.NewConversation:
        """A new conversation with only this device in it; answers the request that tells the server."""
        raw = random_bytes(16)
        conversation = ConversationId(encode_id(raw))
        extensions = self._validator.group_extensions(policy)
        group = Group.create(raw, self._leaf, SUITE, extensions, SETTINGS, self._validator, now)
        self._loaded[conversation] = group
        self._add_row(conversation, group, policy.kind, title, 0, now)
        return bodies.NewConversation(conversation, encode_base64url(group.group_info()))

    def join(self, conversation: ConversationId, welcome: bytes, sequence: int, now: int) -> Group:
        """Enter a conversation by a Welcome; the key package that it used is forgotten.

        Raises: InvalidMessage errors; nothing has changed then.
        """
        saved = self._vault.rows.key_packages()
        packages = [KeyPackageSecrets.load(secrets) for _, secrets in saved]
        group = Group.join(welcome, packages, self._validator, now, SETTINGS)
        if encode_id(group.group_id) != conversation:
            raise NotFound("the Welcome is for another conversation")
        policy = self._validator.verify_group(group.extensions, group.members, group.suite)
        self._verify_rejoin(conversation, group, policy)
        self._loaded[conversation] = group
        self._people.pop(conversation, None)
        self._add_row(conversation, group, policy.kind, "", sequence, now)
        if group.used_key_package is not None:
            self._vault.rows.delete_key_package(group.used_key_package)
        return group

    def _verify_rejoin(self, conversation: ConversationId, group: Group, policy: GroupPolicy) -> None:
        """A conversation that we come back to is the one that we left, later: else another group could take its place
        under its title and its messages. Raises: RuleBroken."""
        row = self._vault.rows.find_conversation(conversation)
        if row is None:
            return
        left = Group.load(row.mls, self._validator)
        old = read_policy(left.extensions)
        follows = group.epoch > left.epoch and policy.kind == old.kind and policy.version >= old.version
        if not follows or (policy.kind == "direct" and policy != old):
            raise RuleBroken("client.rejoin", "this is not the conversation that the device was removed from")

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

    def is_own_commit(self, conversation: str, message_id: bytes, commit: bytes) -> bool:
        """Whether a commit in the log is the one that we staged, id and bytes."""
        found = self._vault.rows.find_pending_commit(conversation)
        pending = self.pending(conversation)
        return (
            found is not None
            and pending is not None
            and found[0] == message_id
            and pending.commit == encode_base64url(commit)
        )

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

    def members(self, conversation: str) -> list[VerifiedDevice]:
        """All devices of a conversation, in leaf order."""
        return [self.identify(member) for member in self.get(conversation).members]

    def people(self, conversation: str) -> dict[str, VerifiedDevice]:
        """One device by user id for everybody in the conversation."""
        epoch = self.get(conversation).epoch
        known = self._people.get(conversation)
        if known is None or known[0] != epoch:
            known = self._people[conversation] = epoch, {d.user_id: d for d in self.members(conversation)}
        return known[1]

    def identify(self, member: MlsMember) -> VerifiedDevice:
        """Whose leaf it is; its chain was verified when it entered the group."""
        return self._validator.identify(member.credential)
