"""Welcomes: making and opening (RFC 9420 section 12.4.3.1). Secret side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from curbside.crypto import aead
from curbside.crypto.kdf import is_same
from curbside.crypto.secret import SecretBytes
from curbside.crypto.suites import Suite, get_suite
from curbside.errors import BadSignature, DuplicateRequest, Malformed
from curbside.mls import tree_math
from curbside.mls.checks import Check, refuse, require
from curbside.mls.codec import decode
from curbside.mls.group_info import verify_group_info
from curbside.mls.key_package import KeyPackageSecrets
from curbside.mls.key_schedule import (
    confirmation_tag,
    derive_epoch,
    derive_member_secret,
    derive_psk_secret,
    derive_welcome_key,
)
from curbside.mls.labels import decrypt_with_label, encrypt_with_label, key_package_ref
from curbside.mls.messages import (
    EncryptedGroupSecrets,
    GroupInfo,
    GroupSecrets,
    HpkeCiphertext,
    Welcome,
    parse_message,
)
from curbside.mls.nodes import KeyPackage
from curbside.mls.proposals import PSK_EXTERNAL, PSK_RESUMPTION, USAGE_APPLICATION, PskId
from curbside.mls.secret_tree import SecretTree
from curbside.mls.state import EpochState
from curbside.mls.transcript import PublicState
from curbside.mls.treekem import derive_upwards
from curbside.mls.validation import Guard

_LABEL = b"Welcome"


@dataclass(frozen=True, slots=True)
class PskStore:
    """Where PSKs come from: external ones by id; resumption ones by (group id, epoch)."""

    external: Mapping[bytes, SecretBytes] = field(default_factory=dict)
    find_resumption: Callable[[bytes, int], bytes | None] = lambda group_id, epoch: None

    def collect(self, psks: Sequence[PskId]) -> list[tuple[PskId, bytes]]:
        """The PSKs in their order. Raises: RuleBroken("mls.psk.known")."""
        found = []
        for psk in psks:
            if psk.kind == PSK_EXTERNAL:
                held = self.external.get(psk.psk_id)
                secret = None if held is None else held.reveal()
            else:
                secret = self.find_resumption(psk.group_id, psk.epoch)
            if secret is None:
                refuse(Check.PSK_KNOWN)
            found.append((psk, secret))
        return found


@dataclass(frozen=True, slots=True, repr=False)
class WelcomeDraft:
    """What a Welcome is made of; `newcomers` pairs KeyPackages with the path secret they get, if any."""

    suite: Suite
    joiner_secret: bytes
    member_secret: bytes
    psks: tuple[PskId, ...]
    group_info: GroupInfo
    newcomers: tuple[tuple[KeyPackage, bytes | None], ...]


def seal_welcome(draft: WelcomeDraft) -> Welcome:
    """One Welcome for all newcomers of a commit."""
    suite = draft.suite
    key, nonce = derive_welcome_key(suite, draft.member_secret)
    info = aead.seal(suite.aead_name, key, nonce, draft.group_info.encode(), b"")
    secrets = []
    for package, path_secret in draft.newcomers:
        plaintext = GroupSecrets(draft.joiner_secret, path_secret, draft.psks).encode()
        sealed = HpkeCiphertext(*encrypt_with_label(suite, package.init_key, _LABEL, info, plaintext))
        secrets.append(EncryptedGroupSecrets(key_package_ref(suite, package.encode()), sealed))
    return Welcome(suite.code, tuple(secrets), info)


@dataclass(frozen=True, slots=True, repr=False)
class OpenedWelcome:
    """A Welcome with its secrets, before the group's state is checked."""

    suite: Suite
    package: KeyPackageSecrets
    secrets: GroupSecrets
    member_secret: bytes
    info: GroupInfo

    @property
    def special_psk(self) -> PskId | None:
        """The PSK that says that this group follows another one by reinit or branch."""
        for psk in self.secrets.psks:
            if psk.kind == PSK_RESUMPTION and psk.usage != USAGE_APPLICATION:
                return psk
        return None


def parse_welcome(data: bytes) -> Welcome:
    """Decode an MLSMessage that must be a Welcome. Raises: Malformed; RuleBroken; TooLarge."""
    message = parse_message(data)
    if not isinstance(message, Welcome):
        raise Malformed("not a Welcome")
    return message


def find_key_package(welcome: Welcome, packages: Sequence[KeyPackageSecrets]) -> tuple[int, KeyPackageSecrets]:
    """Which of our KeyPackages a Welcome is for: (place in the Welcome, KeyPackage). Raises: RuleBroken."""
    ours = {package.reference: package for package in packages if package.package.suite == welcome.suite}
    for place, item in enumerate(welcome.secrets):
        if item.new_member in ours:
            return place, ours[item.new_member]
    return refuse(Check.WELCOME_FOR_US)


def open_welcome(welcome: Welcome, packages: Sequence[KeyPackageSecrets], store: PskStore) -> OpenedWelcome:
    """Decrypt a Welcome with one of our KeyPackages.

    Raises: RuleBroken; DecryptionFailed; Malformed.
    """
    suite = get_suite(welcome.suite)
    place, package = find_key_package(welcome, packages)
    sealed = welcome.secrets[place].sealed
    pair = (sealed.kem_output, sealed.ciphertext)
    plaintext = decrypt_with_label(suite, package.init_private.reveal(), _LABEL, welcome.group_info, pair)
    secrets = decode(plaintext, GroupSecrets.read)
    _check_psks(suite, secrets.psks)
    psk_secret = derive_psk_secret(suite, store.collect(secrets.psks))
    member_secret = derive_member_secret(suite, secrets.joiner_secret, psk_secret)
    key, nonce = derive_welcome_key(suite, member_secret)
    info = decode(aead.open_sealed(suite.aead_name, key, nonce, welcome.group_info, b""), GroupInfo.read)
    return OpenedWelcome(suite, package, secrets, member_secret, info)


def _check_psks(suite: Suite, psks: Collection[PskId]) -> None:
    special = sum(psk.kind == PSK_RESUMPTION and psk.usage != USAGE_APPLICATION for psk in psks)
    require(special <= 1, Check.WELCOME_PSKS)
    require(len(set(psks)) == len(psks), Check.PSK_UNIQUE)
    require(all(len(psk.nonce) == suite.hash_length for psk in psks), Check.PSK_NONCE)


def enter_group(opened: OpenedWelcome, tree: bytes | None, known_groups: Collection[bytes], guard: Guard) -> EpochState:
    """Check everything a Welcome says and become a member.

    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed; DuplicateRequest when we have this group already.
    """
    suite, info, package = opened.suite, opened.info, opened.package
    require(info.context.suite == suite.code == package.package.suite, Check.WELCOME_SUITE)
    if info.context.group_id in known_groups:
        raise DuplicateRequest("a group with this id is there already")
    require(opened.special_psk is None or info.context.epoch == 1, Check.WELCOME_PSKS)
    public = verify_group_info(info, tree, guard)
    own = _find_own_leaf(public, package.package)
    private = {2 * own: package.leaf_private.reveal(), **_path_keys(public, own, opened)}
    secrets, encryption_secret = derive_epoch(suite, opened.member_secret, public.encoded_context)
    tag = confirmation_tag(suite, secrets, info.context.transcript_hash)
    if not is_same(tag, info.confirmation_tag):
        raise BadSignature
    message_keys = SecretTree(suite, public.tree.leaf_count, encryption_secret)
    return EpochState(public, own, package.own, private, secrets, message_keys)


def _find_own_leaf(public: PublicState, package: KeyPackage) -> int:
    wanted = package.leaf.encode()
    for index, leaf in public.tree.leaves():
        if leaf.encode() == wanted:
            return index
    return refuse(Check.WELCOME_LEAF)


def _path_keys(public: PublicState, own: int, opened: OpenedWelcome) -> dict[int, bytes]:
    secret = opened.secrets.path_secret
    if secret is None:
        return {}
    tree, signer = public.tree, opened.info.signer
    require(signer != own, Check.WELCOME_PATH_SECRET)
    ancestor = tree_math.common_ancestor(own, signer)
    above = [ancestor, *tree_math.direct_path(ancestor, tree.leaf_count)]
    filtered = {node for node, _ in tree.filtered_path(signer)}
    nodes = [node for node in above if node in filtered]
    require(bool(nodes) and nodes[0] == ancestor, Check.WELCOME_PATH_SECRET)
    return derive_upwards(tree, nodes, secret, Check.WELCOME_PATH_SECRET)[0]
