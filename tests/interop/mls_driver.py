"""JSON-lines driver of our MLS core, for the interoperability scenarios.

    python tests/interop/mls_driver.py

One JSON object a line in, one out: the result, `{"error": "Type: text"}` for a refusal, `{"unsupported": op}` for an
operation that does not exist. Bytes are hex. A client keeps its secrets in this process under the name it is given.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.suites import get_suite
from curbside.errors import CurbsideError, UsageError
from curbside.mls.extensions import ExternalSender, encode_external_senders
from curbside.mls.group import (
    Application,
    CommitReceived,
    CommitRequest,
    ExternalPsk,
    Group,
    GroupSettings,
    JoinOptions,
    KeyPackageSecrets,
    OwnLeaf,
    make_key_package,
)
from curbside.mls.group_info import parse_group_info
from curbside.mls.nodes import Capabilities, Credential, Extension
from curbside.mls.proposals import Remove
from curbside.mls.public import sign_external_proposal
from curbside.mls.state import StagedCommit
from curbside.mls.trust import UnsafeAcceptAll
from curbside.mls.validation import Limits

Request = Mapping[str, Any]
Answer = dict[str, Any]

DAY = 86400
# Other implementations make KeyPackages that live for a year or for ever.
SETTINGS = GroupSettings(suites=(1, 2, 3), limits=Limits(max_lifetime=2**63))
VALIDATOR = UnsafeAcceptAll()


@dataclass
class Client:
    """One device: its identity and key, its unused KeyPackages, its PSKs, and the one group it is in."""

    identity: bytes
    suite: int
    key: SecretBytes
    packages: list[KeyPackageSecrets] = field(default_factory=list)
    psks: dict[bytes, SecretBytes] = field(default_factory=dict)
    group: Group | None = None

    def leaf(self, request: Request) -> OwnLeaf:
        kinds = tuple(request.get("extensions", ()))
        capabilities = Capabilities(suites=(1, 2, 3), extensions=kinds)
        return OwnLeaf(Credential.basic(self.identity), self.key, capabilities)

    @property
    def joined(self) -> Group:
        if self.group is None:
            raise UsageError("this client is in no group")
        return self.group


CLIENTS: dict[str, Client] = {}
OPS: dict[str, Callable[[Request], Answer]] = {}


def op(function: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    OPS[function.__name__] = function
    return function


def now() -> int:
    return int(time.time())


def of(request: Request) -> Client:
    return CLIENTS[request["client"]]


def read_hex(request: Request, name: str) -> bytes:
    return bytes.fromhex(request.get(name) or "")


def read_extensions(listed: list[dict[str, Any]] | None) -> tuple[Extension, ...]:
    return tuple(Extension(item["type"], bytes.fromhex(item["data"])) for item in listed or ())


@op
def hello(request: Request) -> Answer:
    return {"impl": "curbside", "ops": sorted(OPS)}


@op
def new_client(request: Request) -> Answer:
    suite = request.get("suite", 1)
    key = generate_signature_key(get_suite(suite).signature_name)
    identity = request.get("identity") or request["client"]
    CLIENTS[request["client"]] = Client(identity.encode(), suite, key)
    return {}


@op
def key_package(request: Request) -> Answer:
    client = of(request)
    lifetime = (now() - DAY, now() + 84 * DAY)
    made = make_key_package(client.leaf(request), client.suite, lifetime)
    client.packages.append(made)
    return {"kp": made.public.hex()}


@op
def psk(request: Request) -> Answer:
    of(request).psks[read_hex(request, "id")] = SecretBytes(read_hex(request, "psk"))
    return {}


@op
def create_group(request: Request) -> Answer:
    client = of(request)
    extensions = read_extensions(request.get("group_extensions"))
    group_id, leaf = read_hex(request, "group_id"), client.leaf(request)
    client.group = Group.create(group_id, leaf, client.suite, extensions, SETTINGS, VALIDATOR, now())
    return {}


@op
def commit(request: Request) -> Answer:
    client = of(request)
    group = client.joined
    if request.get("tree") is False:
        group = client.group = Group.load(group.save(), VALIDATOR, replace(SETTINGS, tree_in_welcome=False))
    gce = request.get("gce")
    wanted = CommitRequest(
        adds=tuple(map(bytes.fromhex, request.get("adds", ()))),
        removes=tuple(request.get("removes", ())),
        extensions=None if gce is None else read_extensions(gce),
        psks=tuple(ExternalPsk(name, client.psks[name]) for name in map(bytes.fromhex, request.get("psks", ()))),
        aad=read_hex(request, "aad"),
        wire=request.get("wire", "public"),
        update=request.get("update", True),
    )
    staged = group.stage_commit(wanted, now(), client.psks)
    if request.get("apply", True):
        group.commit_accepted(staged)
    welcome = None if staged.welcome is None else staged.welcome.hex()
    return {"commit": staged.commit.hex(), "welcome": welcome, "group_info": staged.group_info.hex()}


@op
def apply_pending(request: Request) -> Answer:
    of(request).joined.commit_accepted()
    return {}


@op
def drop_pending(request: Request) -> Answer:
    of(request).joined.commit_rejected()
    return {}


@op
def propose(request: Request) -> Answer:
    """One proposal: removes, adds, gce or psks as in `commit`, or `update`."""
    client, wire = of(request), request.get("wire", "public")
    group = client.joined
    if request.get("removes"):
        message = group.propose_remove(request["removes"][0], now(), wire)
    elif request.get("adds"):
        message = group.propose_add(bytes.fromhex(request["adds"][0]), now(), wire)
    elif request.get("gce") is not None:
        message = group.propose_extensions(read_extensions(request["gce"]), now(), wire)
    elif request.get("psks"):
        name = bytes.fromhex(request["psks"][0])
        message = group.propose_psk(ExternalPsk(name, client.psks[name]), now(), wire)
    else:
        message = group.propose_update(now(), wire=wire)
    return {"msg": message.hex()}


@op
def join(request: Request) -> Answer:
    client = of(request)
    options = JoinOptions(tree=read_hex(request, "tree") or None, psks=client.psks)
    group = Group.join(read_hex(request, "welcome"), client.packages, VALIDATOR, now(), SETTINGS, options)
    client.packages = [package for package in client.packages if package.reference != group.used_key_package]
    client.group = group
    return {}


@op
def encrypt(request: Request) -> Answer:
    return {"msg": of(request).joined.encrypt(read_hex(request, "data"), read_hex(request, "aad")).hex()}


@op
def process(request: Request) -> Answer:
    client = of(request)
    received = client.joined.receive(read_hex(request, "msg"), now(), client.psks)
    if isinstance(received, Application):
        return {
            "kind": "application",
            "data": received.data.hex(),
            "aad": received.aad.hex(),
            "sender": received.sender.leaf_index,
            "epoch": received.epoch,
        }
    if isinstance(received, CommitReceived):
        place = received.sender.leaf_index
        return {"kind": "commit", "sender": place, "removed": received.removed_me, "aad": received.aad.hex()}
    return {"kind": "proposal", "sender": received.sender.index, "what": received.kind}


@op
def group_info(request: Request) -> Answer:
    return {"group_info": of(request).joined.group_info().hex()}


@op
def ratchet_tree(request: Request) -> Answer:
    return {"tree": of(request).joined.ratchet_tree().hex()}


@op
def external_commit(request: Request) -> Answer:
    client = of(request)
    options = JoinOptions(resync=bool(request.get("resync")), psks=client.psks)
    info, leaf = read_hex(request, "group_info"), client.leaf(request)
    client.group, message = Group.join_external(info, leaf, VALIDATOR, now(), SETTINGS, options)
    return {"commit": message.hex()}


@op
def signer_new(request: Request) -> Answer:
    key = generate_signature_key("ed25519")
    public = Signer("ed25519", key).public
    extension = encode_external_senders(ExternalSender(public, Credential.basic(request["identity"].encode())))
    return {"pub": public.hex(), "priv": key.reveal().hex(), "extension": extension.body.hex()}


@op
def external_remove(request: Request) -> Answer:
    # WebCrypto hands out private keys as PKCS #8; the raw key is its last 32 bytes (RFC 8410 section 7).
    key = SecretBytes(read_hex(request, "priv")[-32:])
    context = parse_group_info(read_hex(request, "group_info")).context
    return {"msg": sign_external_proposal(context, Remove(request["leaf"]), key, 0).hex()}


@op
def export(request: Request) -> Answer:
    context, length = read_hex(request, "context"), request.get("length", 32)
    return {"secret": of(request).joined.export(request["label"], context, length).hex()}


@op
def save(request: Request) -> Answer:
    return {"blob": of(request).joined.save().hex()}


@op
def load(request: Request) -> Answer:
    of(request).group = Group.load(read_hex(request, "blob"), VALIDATOR)
    return {}


def digest(client: Client) -> str:
    """The hash of everything that the client holds."""
    parts = [client.group.save() if client.group else b"", *(package.save() for package in client.packages)]
    parts += [name + secret.reveal() for name, secret in sorted(client.psks.items())]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


@op
def state(request: Request) -> Answer:
    client = of(request)
    group = client.joined
    staged: StagedCommit | None = group.state.staged
    return {
        "epoch": group.epoch,
        "auth": group.epoch_authenticator().hex() if group.is_active else "",
        "own": group.own_leaf,
        "members": [[member.leaf_index, member.credential.identity.hex()] for member in group.members],
        "pending_proposals": len(group.pending),
        "staged": staged is not None,
        "digest": digest(client),
    }


def answer(line: str) -> Answer:
    request: Request = json.loads(line)
    function = OPS.get(request["op"])
    if function is None:
        return {"unsupported": request["op"]}
    try:
        return function(request)
    except CurbsideError as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    for line in sys.stdin:
        if line.strip():
            sys.stdout.write(json.dumps(answer(line)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
