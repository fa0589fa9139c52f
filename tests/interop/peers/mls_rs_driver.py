"""JSON-lines driver of mls-rs (package agentvault-mls-rs-uniffi): a second opinion, in tests only.

Its Python API is small: an operation or an argument that it cannot express is answered with `{"unsupported": what}`.
Members are named by identity objects without a getter, so the scenarios say who sent (`by`), and that object is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mls_rs_uniffi import mls_rs_uniffi as rs

Request = Mapping[str, Any]
Answer = dict[str, Any]


class CannotExpress(Exception):
    """The API has no way to say this."""


@dataclass
class Client:
    identity: str
    client: Any
    group: Any = None
    group_id: bytes = b""
    known: dict[str, Any] = field(default_factory=dict)


CLIENTS: dict[str, Client] = {}
OPS: dict[str, Callable[[Request], Answer]] = {}


def op(function: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    OPS[function.__name__] = function
    return function


def of(request: Request) -> Client:
    return CLIENTS[request["client"]]


def parse(encoded: str) -> Any:
    return rs.Message.from_bytes(bytes.fromhex(encoded))


def refuse(request: Request, *names: str) -> None:
    for name in names:
        if request.get(name):
            raise CannotExpress(name)


def identity_of(client: Client, name: str) -> Any:
    here = next((other for other in CLIENTS.values() if other.identity == name), None)
    if here is not None:
        return here.client.signing_identity()
    if name not in client.known:
        raise CannotExpress(f"remove {name}, who never sent anything")
    return client.known[name]


@op
def hello(request: Request) -> Answer:
    return {"impl": "mls-rs", "ops": sorted(OPS)}


@op
def new_client(request: Request) -> Answer:
    keys = rs.generate_signature_keypair(rs.CipherSuite.CURVE25519_AES128)
    name = request.get("identity") or request["client"]
    made = rs.Client(id=name.encode(), signature_keypair=keys, client_config=rs.client_config_default())
    CLIENTS[request["client"]] = Client(name, made)
    return {}


@op
def key_package(request: Request) -> Answer:
    refuse(request, "extensions")
    return {"kp": of(request).client.generate_key_package_message().to_bytes().hex()}


@op
def create_group(request: Request) -> Answer:
    refuse(request, "group_extensions", "extensions")
    client = of(request)
    client.group_id = bytes.fromhex(request["group_id"])
    client.group = client.client.create_group(client.group_id)
    return {}


@op
def commit(request: Request) -> Answer:
    refuse(request, "gce", "psks", "aad")
    if request.get("wire") == "private":
        raise CannotExpress("wire")
    if request.get("tree") is False:
        raise CannotExpress("tree")
    client = of(request)
    adds, removes = request.get("adds"), request.get("remove_ids")
    if adds and removes:
        raise CannotExpress("adds and removes in one commit")
    if adds:
        output = client.group.add_members([parse(kp) for kp in adds])
    elif removes:
        output = client.group.remove_members([identity_of(client, name) for name in removes])
    else:
        output = client.group.commit()
    if request.get("apply", True):
        client.group.process_incoming_message(output.commit_message)
    welcome = output.welcome_message
    return {
        "commit": output.commit_message.to_bytes().hex(),
        "welcome": welcome.to_bytes().hex() if welcome else None,
    }


@op
def drop_pending(request: Request) -> Answer:
    # The commit of another member replaces the pending one; there is nothing to call.
    return {}


@op
def propose(request: Request) -> Answer:
    refuse(request, "gce", "psks", "aad")
    if request.get("wire") == "private":
        raise CannotExpress("wire")
    client = of(request)
    if request.get("adds"):
        made = client.group.propose_add_members([parse(kp) for kp in request["adds"]])
    elif request.get("remove_ids"):
        made = client.group.propose_remove_members([identity_of(client, name) for name in request["remove_ids"]])
    else:
        raise CannotExpress("propose an update")
    return {"msg": made[0].to_bytes().hex()}


@op
def join(request: Request) -> Answer:
    client = of(request)
    tree = rs.RatchetTree(bytes=bytes.fromhex(request["tree"])) if request.get("tree") else None
    client.group = client.client.join_group(tree, parse(request["welcome"])).group
    return {}


@op
def encrypt(request: Request) -> Answer:
    refuse(request, "aad")
    data = bytes.fromhex(request["data"])
    message = of(request).group.encrypt_application_message(data).to_bytes()
    remember_group(of(request), message)
    return {"msg": message.hex()}


def remember_group(client: Client, message: bytes) -> None:
    """The group id, which the API does not tell, stands behind version and wire format with a length of one byte."""
    client.group_id = message[5 : 5 + message[4]]


@op
def process(request: Request) -> Answer:
    client = of(request)
    remember_group(client, bytes.fromhex(request["msg"]))
    received = client.group.process_incoming_message(parse(request["msg"]))
    if received.is_application_message():
        if request.get("by"):
            client.known[request["by"]] = received.sender
        return {"kind": "application", "data": received.data.hex(), "aad": None, "sender": None, "epoch": None}
    if received.is_commit():
        if request.get("by"):
            client.known[request["by"]] = received.committer
        return {"kind": "commit", "removed": "REMOVED" in str(received.effect), "sender": None, "aad": None}
    return {"kind": "proposal", "sender": None}


@op
def ratchet_tree(request: Request) -> Answer:
    return {"tree": of(request).group.export_tree().bytes.hex()}


@op
def export(request: Request) -> Answer:
    label, context = request["label"].encode(), bytes.fromhex(request.get("context", ""))
    return {"secret": of(request).group.export_secret(label, context, request.get("length", 32)).hex()}


@op
def save(request: Request) -> Answer:
    # Storage lies inside the client object; the blob only names the group in it.
    client = of(request)
    client.group.write_to_storage()
    return {"blob": client.group_id.hex()}


@op
def load(request: Request) -> Answer:
    client = of(request)
    client.group = client.client.load_group(bytes.fromhex(request["blob"]))
    return {}


def answer(line: str) -> Answer:
    request: Request = json.loads(line)
    function = OPS.get(request["op"])
    if function is None:
        return {"unsupported": request["op"]}
    try:
        return function(request)
    except CannotExpress as missing:
        return {"unsupported": f"{request['op']}: {missing}"}
    except (rs.Error, rs.InternalError) as error:
        _, unfinished, what = str(error).partition("not yet implemented: ")
        if unfinished:
            return {"unsupported": f"{request['op']}: {what}"}
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    for line in sys.stdin:
        if line.strip():
            sys.stdout.write(json.dumps(answer(line)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
