"""Attachments on two nodes and one bucket: an upload goes on at another node when its own is killed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cluster import Cluster, move
from running import Person
from s3 import SECRET_KEY, bucket_of, s3_server

from curbside.audit.events import EventName
from curbside.crypto.random import random_bytes
from curbside.ids import encode_base64url, encode_id
from curbside.wire import bodies
from curbside.wire.limits import BLOB_CHUNK_BYTES

PART = BLOB_CHUNK_BYTES


async def test_an_upload_survives_its_node(own_folder: Path) -> None:
    storage = s3_server().settings(bucket_of(own_folder))
    settings = {
        "BLOBS_ENDPOINT": str(storage.endpoint),
        "BLOBS_BUCKET": str(storage.bucket),
        "BLOBS_ACCESS_KEY_ID": str(storage.access_key_id),
        "BLOBS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    data = random_bytes(9 * PART + 77)
    with Cluster(own_folder, nats=False, **settings) as cluster:
        first, second = cluster.nodes
        alice = await Person.join(first, "Alice Ang")  # type: ignore[arg-type]
        bob = await Person.join(second, "Bob Berg")  # type: ignore[arg-type]
        group = await alice.begin()
        await alice.add(group, bob)
        digest = encode_base64url(hashlib.sha256(data).digest())
        answer = await alice.post("/v1/blobs", bodies.NewBlob(encode_id(group.group_id), len(data), digest))
        path = f"/v1/blobs/{answer.json()['blob_id']}"
        for number, at in enumerate(range(0, len(data), PART)):
            if number == 3:
                first.kill()
                await move(alice, second)
                head = await alice.request("HEAD", path)
                assert head.headers["upload-offset"] == str(at)
            headers = {"upload-offset": str(at), "content-type": "application/octet-stream"}
            part = await alice.request("PATCH", path, data[at : at + PART], headers)
            assert part.status_code == 200, part.text
        assert part.json()["complete"] is True
        assert (await bob.get(path)).content == data
        first.start()
        await move(bob, first)
        tail = await bob.get(path, headers={"range": f"bytes={9 * PART}-"})
        assert (tail.status_code, tail.content) == (206, data[9 * PART :])
        uploaded = [event for event in await cluster.events() if event.name == EventName.ATTACHMENT_UPLOADED]
        assert len(uploaded) == 1
        for node in cluster.nodes:
            assert SECRET_KEY not in node.log.read_text("utf-8", "replace")
            assert not list((node.folder / "data").glob("blobs/*"))
        await alice.close()
        await bob.close()
