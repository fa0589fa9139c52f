"""Every rule a peer's bytes can break: its stable id, what it says and where RFC 9420 says it."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from curbside.errors import RuleBroken


class Check(StrEnum):
    """One rule. The value is the id that `RuleBroken.check` carries."""

    sentence: str
    section: str

    def __new__(cls, check: str, sentence: str, section: str) -> Check:
        member = str.__new__(cls, check)
        member._value_ = check
        member.sentence = sentence
        member.section = section
        return member

    SUITE_KNOWN = "mls.suite.known", "The cipher suite is one of the seven.", "17.1"
    SUITE_ALLOWED = "mls.suite.allowed", "The cipher suite is one that the settings allow.", "5.1"
    VERSION = "mls.version", "The protocol version is mls10.", "6"
    EXTENSION_UNIQUE = "mls.extension.unique", "A list holds one extension of a type at most.", "13.4"
    EXTENSION_SUPPORTED = (
        "mls.extension.supported",
        "Every member supports every extension of the group context.",
        "13.4",
    )

    LEAF_SOURCE = "mls.leaf.source", "The leaf's source fits the place where the leaf is.", "7.3"
    LEAF_LIFETIME = "mls.leaf.lifetime", "The current time lies in the leaf's lifetime.", "7.3"
    LEAF_LIFETIME_LENGTH = "mls.leaf.lifetime_length", "The leaf's lifetime is not longer than allowed.", "7.2"
    LEAF_CAPABILITIES = (
        "mls.leaf.capabilities",
        "The leaf lists its own extensions and credential type in its capabilities.",
        "7.3",
    )
    LEAF_REQUIRED = "mls.leaf.required_capabilities", "The leaf has what the group requires.", "7.3"
    LEAF_CREDENTIALS = (
        "mls.leaf.credential_support",
        "Every member supports the credential types in use.",
        "7.3",
    )
    LEAF_SIGNATURE_KEY = "mls.leaf.signature_key_unique", "No two members have one signature key.", "7.3"
    LEAF_ENCRYPTION_KEY = "mls.leaf.encryption_key_unique", "No two nodes have one encryption key.", "7.3"
    LEAF_KEY_CHANGED = "mls.leaf.key_changed", "A new leaf has another encryption key than the old one.", "7.3"
    LEAF_KEY_FORM = "mls.leaf.key_form", "The keys are valid for the cipher suite.", "10"

    KEY_PACKAGE_SUITE = "mls.key_package.suite", "The KeyPackage has the group's version and suite.", "10.1"
    KEY_PACKAGE_INIT_KEY = "mls.key_package.init_key", "init_key differs from the leaf's encryption key.", "10.1"

    TREE_LAST_NODE = "mls.tree.last_node", "The last node of an encoded tree is not blank.", "12.4.3.3"
    TREE_SHAPE = "mls.tree.shape", "Leaves and parents stand where the index says.", "12.4.3.3"
    TREE_HASH = "mls.tree.hash", "The tree has the hash that the group context names.", "12.4.3.1"
    TREE_PARENT_HASH = "mls.tree.parent_hash", "Every parent node is parent-hash valid.", "7.9.2"
    TREE_UNMERGED = (
        "mls.tree.unmerged_leaves",
        "Unmerged leaves are sorted, exist below the node and are listed by the nodes between.",
        "12.4.3.1",
    )
    TREE_MISSING = "mls.tree.missing", "The ratchet tree is in the message or given beside it.", "12.4.3.3"
    TREE_SIZE = "mls.tree.size", "The tree has no more leaves than the settings allow.", "7.7"

    MESSAGE_FORMAT = "mls.message.format", "This kind of message is allowed here.", "6"
    MESSAGE_APPLICATION = "mls.message.application_private", "Application data is always encrypted.", "6"
    MESSAGE_SENDER = "mls.message.sender", "The sender exists and may send this content.", "6.1"
    MESSAGE_SELF = "mls.message.own", "One's own message is not received.", "6"
    MESSAGE_PADDING = "mls.message.padding", "Padding is all zeros.", "6.3.1"
    MESSAGE_FORWARD = "mls.message.forward_limit", "The generation is not too far ahead.", "15.3"
    MESSAGE_GENERATION = "mls.message.generation", "The generation fits in 32 bits.", "6.3.2"

    PROPOSAL_EXTERNAL = "mls.proposal.external_type", "An external sender may send this type.", "12.1.8"
    PROPOSAL_JOIN = "mls.proposal.join_request", "Outsiders may ask to be added only if the settings say so.", "12.1.8"
    PROPOSAL_KNOWN = "mls.proposal.known", "A proposal that a commit refers to was received.", "12.4"
    PROPOSAL_LIMIT = "mls.proposal.limit", "No more proposals wait than the settings allow.", "12.1"
    REMOVE_EXISTS = "mls.remove.exists", "A Remove names a member.", "12.1.3"
    PSK_NONCE = "mls.psk.nonce", "The nonce of a PSK has the length KDF.Nh.", "12.1.4"
    PSK_USAGE = "mls.psk.usage", "PSKs for reinit and branch are used for nothing else.", "12.1.4"
    PSK_KNOWN = "mls.psk.known", "Every PSK that is named is at hand.", "12.4.2"
    PSK_UNIQUE = "mls.psk.unique", "No PSK is named twice.", "12.2"
    REINIT_VERSION = "mls.reinit.version", "A ReInit does not lower the version.", "12.1.5"
    REINIT_ALONE = "mls.reinit.alone", "A ReInit is the only proposal of its commit.", "12.2"
    REINIT_MATCH = "mls.reinit.match", "The new group is the one the ReInit asked for.", "11.2"
    BRANCH_MATCH = "mls.branch.match", "The new group has the old one's suite and only its members.", "11.3"

    COMMIT_OWN_UPDATE = "mls.commit.own_update", "A commit holds no Update of its sender.", "12.2"
    COMMIT_OWN_REMOVE = "mls.commit.own_remove", "A commit does not remove its sender.", "12.2"
    COMMIT_UPDATE_BY_VALUE = "mls.commit.update_by_value", "An Update comes from the member it changes.", "12.2"
    COMMIT_ONE_PER_LEAF = "mls.commit.one_per_leaf", "A leaf is updated or removed once.", "12.2"
    COMMIT_DUPLICATE_ADD = "mls.commit.duplicate_add", "A client is added once, and only if not a member.", "12.2"
    COMMIT_ONE_EXTENSIONS = "mls.commit.one_extensions", "One GroupContextExtensions proposal at most.", "12.2"
    COMMIT_EXTERNAL_INIT = "mls.commit.external_init", "ExternalInit stands in external commits, once.", "12.2"
    COMMIT_EXTERNAL_LIST = "mls.commit.external_list", "An external commit holds only what it may, by value.", "12.2"
    COMMIT_PATH = "mls.commit.path_required", "The path is there when a proposal needs it.", "12.4"
    COMMIT_PATH_LENGTH = "mls.commit.path_length", "The path fits the sender's filtered direct path.", "7.5"
    COMMIT_PATH_CIPHERTEXTS = (
        "mls.commit.path_ciphertexts",
        "One ciphertext stands for every node of a resolution.",
        "7.6",
    )
    COMMIT_PATH_KEY_UNIQUE = "mls.commit.path_key_unique", "No key of the path is in the tree.", "12.4.2"
    COMMIT_PATH_KEY_DERIVED = "mls.commit.path_key_derived", "The keys of the path follow from its secret.", "7.5"
    COMMIT_PARENT_HASH = "mls.commit.parent_hash", "The committer's leaf has the right parent hash.", "7.9.2"
    COMMIT_REINIT_DONE = "mls.commit.after_reinit", "After a ReInit nothing is sent in the group.", "12.4.2"
    COMMIT_EPOCH_LIMIT = "mls.commit.epoch_limit", "The epoch number fits in 64 bits.", "12.1"

    WELCOME_FOR_US = "mls.welcome.for_us", "The Welcome names one of our KeyPackages.", "12.4.3.1"
    WELCOME_SUITE = "mls.welcome.suite", "Welcome, KeyPackage and GroupInfo name one cipher suite.", "12.4.3.1"
    WELCOME_LEAF = "mls.welcome.leaf", "The tree holds the leaf of our KeyPackage.", "12.4.3.1"
    WELCOME_PATH_SECRET = "mls.welcome.path_secret", "The path secret gives the keys of the tree.", "12.4.3.1"
    WELCOME_PSKS = "mls.welcome.psks", "A PSK for reinit or branch stands alone, in epoch 1.", "12.4.3.1"
    GROUP_INFO_SIGNER = "mls.group_info.signer", "The GroupInfo's signer is a member.", "12.4.3"
    GROUP_INFO_EXTERNAL_PUB = "mls.group_info.external_pub", "The GroupInfo has an external_pub.", "12.4.3.2"


def broken(check: Check, detail: str = "") -> RuleBroken:
    """The error for a broken rule, to be raised."""
    return RuleBroken(check.value, detail or check.sentence)


def require(condition: bool, check: Check, detail: str = "") -> None:
    """Go on only if the rule holds.

    Raises: RuleBroken.
    """
    if not condition:
        raise broken(check, detail)


def refuse(check: Check, detail: str = "") -> NoReturn:
    """Raise the error for a broken rule.

    Raises: RuleBroken, always.
    """
    raise broken(check, detail)
