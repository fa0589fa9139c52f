"""Explains an MLSMessage line by line, from public content only."""

from __future__ import annotations

from collections.abc import Iterator

from curbside.mls.messages import (
    Commit,
    GroupInfo,
    PrivateMessage,
    PublicMessage,
    Sender,
    Welcome,
    parse_message,
)
from curbside.mls.nodes import Credential, Extensions, KeyPackage, LeafNode
from curbside.mls.proposals import Add, GroupContextExtensions, PreSharedKey, Proposal, ReInit, Remove, Update

_CONTENT = {1: "application", 2: "proposal", 3: "commit"}
_SENDERS = {1: "member", 2: "external sender", 3: "newcomer (proposal)", 4: "newcomer (commit)"}
_SOURCES = {1: "key package", 2: "update", 3: "commit"}


def _short(value: bytes) -> str:
    text = value.hex()
    return text if len(text) <= 32 else f"{text[:24]}... ({len(value)} bytes)"


def _credential(credential: Credential) -> str:
    if credential.kind == 1:
        return f"basic {_short(credential.identity)}"
    return f"x509 chain of {len(credential.certificates)}"


def _extensions(extensions: Extensions) -> str:
    return ", ".join(f"{e.kind:#06x} ({len(e.body)} bytes)" for e in extensions) or "none"


def _leaf(leaf: LeafNode) -> Iterator[str]:
    yield f"credential: {_credential(leaf.credential)}"
    yield f"signature key: {_short(leaf.signature_key)}"
    yield f"encryption key: {_short(leaf.encryption_key)}"
    yield f"source: {_SOURCES[leaf.source]}"
    if leaf.lifetime:
        yield f"lifetime: {leaf.lifetime.not_before} to {leaf.lifetime.not_after}"
    yield f"extensions: {_extensions(leaf.extensions)}"


def _sender(sender: Sender) -> str:
    return _SENDERS[sender.kind] + (f" {sender.index}" if sender.kind <= 2 else "")


def _proposal(proposal: Proposal) -> str:
    match proposal:
        case Add(key_package):
            return f"add {_credential(key_package.leaf.credential)}"
        case Remove(removed):
            return f"remove leaf {removed}"
        case Update(leaf):
            return f"update to {_credential(leaf.credential)}"
        case PreSharedKey(psk):
            return "psk " + (_short(psk.psk_id) if psk.kind == 1 else f"of epoch {psk.epoch}")
        case ReInit(group_id, _, suite):
            return f"reinit as {_short(group_id)}, suite {suite}"
        case GroupContextExtensions(extensions):
            return f"group context extensions: {_extensions(extensions)}"
    return proposal.name


def _public(message: PublicMessage) -> Iterator[str]:
    content = message.authenticated.content
    yield f"PublicMessage: {_CONTENT[content.content_type]}"
    yield f"group: {_short(content.group_id)}"
    yield f"epoch: {content.epoch}"
    yield f"sender: {_sender(content.sender)}"
    yield f"authenticated data: {len(content.aad)} bytes"
    body = content.body
    if isinstance(body, Commit):
        for item in body.proposals:
            yield "- " + (f"reference {_short(item)}" if isinstance(item, bytes) else _proposal(item))
        if body.path is not None:
            count = sum(len(node.sealed) for node in body.path.nodes)
            yield f"path: {len(body.path.nodes)} nodes, {count} ciphertexts"
    elif not isinstance(body, bytes):
        yield "- " + _proposal(body)


def _private(message: PrivateMessage) -> Iterator[str]:
    yield f"PrivateMessage: {_CONTENT[message.content_type]}"
    yield f"group: {_short(message.group_id)}"
    yield f"epoch: {message.epoch}"
    yield f"authenticated data: {len(message.aad)} bytes"
    yield f"ciphertext: {len(message.ciphertext)} bytes"


def _welcome(message: Welcome) -> Iterator[str]:
    yield f"Welcome: suite {message.suite}, for {len(message.secrets)} newcomers"
    for item in message.secrets:
        yield f"- KeyPackage {_short(item.new_member)}"
    yield f"encrypted GroupInfo: {len(message.group_info)} bytes"


def _group_info(message: GroupInfo) -> Iterator[str]:
    context = message.context
    yield f"GroupInfo: suite {context.suite}"
    yield f"group: {_short(context.group_id)}"
    yield f"epoch: {context.epoch}"
    yield f"tree hash: {_short(context.tree_hash)}"
    yield f"group extensions: {_extensions(context.extensions)}"
    yield f"extensions: {_extensions(message.extensions)}"
    yield f"signer: leaf {message.signer}"


def _key_package(message: KeyPackage) -> Iterator[str]:
    yield f"KeyPackage: suite {message.suite}"
    yield f"init key: {_short(message.init_key)}"
    yield from _leaf(message.leaf)


def describe(data: bytes) -> list[str]:
    """Lines that explain an MLSMessage; nothing is verified. Raises: Malformed; RuleBroken; TooLarge."""
    message = parse_message(data)
    if isinstance(message, PublicMessage):
        return list(_public(message))
    if isinstance(message, PrivateMessage):
        return list(_private(message))
    if isinstance(message, Welcome):
        return list(_welcome(message))
    if isinstance(message, GroupInfo):
        return list(_group_info(message))
    return list(_key_package(message))
