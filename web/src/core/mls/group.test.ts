import { type Proposal, decodeMlsMessage, encodeMlsMessage, proposeExternal } from "ts-mls";
import { beforeAll, describe, expect, it } from "vitest";
import { CurbsideError } from "../errors";
import { Device } from "./device";
import { Group } from "./group";
import { paddedSize } from "./padding";
import { loadSuite, parseMessage } from "./suite";
import { type DeliveryService, POLICY, type TestDevice, makeDeliveryService, makeDevice } from "./testing/people";
import type { LeafIdentity } from "./types";

type G = Group<LeafIdentity>;
const text = new TextEncoder();
const id = (n: number): Uint8Array => new Uint8Array(16).fill(n);
const GROUP_ID = id(9);

let service: DeliveryService;
let alice: TestDevice;
let bob: TestDevice;
let carol: TestDevice;

beforeAll(async () => {
  service = await makeDeliveryService();
  alice = await makeDevice(service, "alice");
  bob = await makeDevice(service, "bob");
  carol = await makeDevice(service, "carol");
});

async function start(): Promise<G> {
  return alice.device.createGroup(GROUP_ID, POLICY, Math.floor(Date.now() / 1000));
}

async function pair(): Promise<[G, G]> {
  const invited = await bob.keyPackage();
  const staged = await (await start()).stageCommit({ add: [invited.keyPackage] }, id(1));
  return [await staged.group.commitAccepted(), await bob.device.join(staged.welcome!, invited.secrets)];
}

async function trio(): Promise<[G, G, G]> {
  const [a, b] = await pair();
  const invited = await carol.keyPackage();
  const staged = await a.stageCommit({ add: [invited.keyPackage] }, id(2));
  const { group } = await b.receive(staged.commit);
  return [await staged.group.commitAccepted(), group, await carol.device.join(staged.welcome!, invited.secrets)];
}

async function refused(promise: Promise<unknown>, code: string, check?: string): Promise<CurbsideError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CurbsideError);
  const known = error as CurbsideError;
  expect(known.code).toBe(code);
  if (check !== undefined) expect(known.members["check"]).toBe(check);
  return known;
}

async function externalMessage(group: G, proposal: Proposal): Promise<Uint8Array> {
  const info = parseMessage(await group.groupInfo(), "mls_group_info").groupInfo;
  return encodeMlsMessage(
    await proposeExternal(info, proposal, service.key, service.seed, await loadSuite()),
  );
}

describe("three members", () => {
  it("read one another, with sender, epoch and authenticated data", async () => {
    const [a, b, c] = await trio();
    const sent = await a.encrypt(text.encode("hello"), id(7));
    for (const reader of [b, c]) {
      const { received } = await reader.receive(sent.envelope);
      expect(received).toMatchObject({ kind: "application", epoch: 2, sender: { leaf: 0, identity: { userId: "alice" } } });
      if (received.kind !== "application") throw new Error("unreachable");
      expect(received.data).toEqual(text.encode("hello"));
      expect(received.aad).toEqual(id(7));
    }
    expect(a.epochAuthenticator()).toEqual(c.epochAuthenticator());
    expect(await a.export("x", id(1), 32)).toEqual(await b.export("x", id(1), 32));
  });

  it("agree on who was added by whom, and on who was removed", async () => {
    const [a, b, c] = await trio();
    const added = bob.rules.seen.at(-1);
    expect(added?.diff.added.map((entry) => entry.member.identity.userId)).toEqual(["carol"]);
    expect(added?.diff.added[0]?.by).toMatchObject({ kind: "member", member: { identity: { userId: "alice" } } });
    const staged = await b.stageCommit({ remove: [2] }, id(3));
    expect(staged.diff.removed[0]?.member.identity.userId).toBe("carol");
    const after = await c.receive(staged.commit);
    expect(after.received).toMatchObject({ kind: "commit", removedMe: true });
    expect(after.group.isActive).toBe(false);
    await refused(after.group.encrypt(text.encode("x"), id(8)), "not_found");
    const next = await a.receive(staged.commit);
    expect(next.group.members.map((member) => member.identity.userId)).toEqual(["alice", "bob"]);
    const sent = await next.group.encrypt(text.encode("without carol"), id(4));
    await refused(after.group.receive(sent.envelope), "not_found");
    expect((await (await staged.group.commitAccepted()).receive(sent.envelope)).received.kind).toBe("application");
  });

  it("survive saving and loading at each step", async () => {
    const reload = async (group: G, who: TestDevice): Promise<G> => Group.load(group.save(), who.rules);
    const [a, b] = await pair();
    let [left, right] = [await reload(a, alice), await reload(b, bob)];
    for (let round = 0; round < 6; round++) {
      const sent = await left.encrypt(text.encode(`round ${round}`), id(round));
      right = await reload((await right.receive(sent.envelope)).group, bob);
      const staged = await sent.group.stageCommit({}, id(100 + round));
      right = (await right.receive(staged.commit)).group;
      left = await (await reload(staged.group, alice)).commitAccepted();
      [left, right] = [right, left];
      const swap = alice;
      [alice, bob] = [bob, swap];
    }
    expect(left.epoch).toBe(7);
    expect(left.epochAuthenticator()).toEqual(right.epochAuthenticator());
  });
});

describe("a refused input leaves the group as it was", () => {
  it("for changed, cut and foreign bytes", async () => {
    const [a, b] = await pair();
    const before = b.save();
    const sent = await a.encrypt(text.encode("genuine"), id(1));
    const staged = await sent.group.stageCommit({}, id(2));
    for (const bytes of [sent.envelope, staged.commit]) {
      for (const at of [10, bytes.length >> 1, bytes.length - 1]) {
        const changed = bytes.slice();
        changed[at]! ^= 1;
        await expect(b.receive(changed)).rejects.toBeInstanceOf(CurbsideError);
      }
      await expect(b.receive(bytes.slice(0, -1))).rejects.toBeInstanceOf(CurbsideError);
      await refused(b.receive(Uint8Array.of(...bytes, 0)), "malformed");
    }
    expect(b.save()).toEqual(before);
    const read = await b.receive(sent.envelope);
    expect(read.received.kind).toBe("application");
    await refused(read.group.receive(sent.envelope), "replayed");
    expect((await read.group.receive(staged.commit)).group.epoch).toBe(2);
  });

  it("for a commit that a rule refuses, and our own such commit", async () => {
    const [a, b, c] = await trio();
    const before = b.save();
    const staged = await a.stageCommit({ remove: [2] }, id(3));
    bob.rules.refuse = (transition) => transition.diff.removed.length > 0;
    await refused(b.receive(staged.commit), "rule_broken", "test.rule");
    await refused(b.stageCommit({ remove: [2] }, id(4)), "rule_broken", "test.rule");
    bob.rules.refuse = undefined;
    expect(b.save()).toEqual(before);
    expect(c.epoch).toBe(2);
  });

  it("for a device that nobody vouches for: no commit with it, and no joining it", async () => {
    const [a, b] = await pair();
    const ghost = await makeDevice(service, "ghost", "forged");
    ghost.rules.verifyLeaf = async () => ({ userId: "ghost", deviceId: "ghost-phone" });
    const invited = await ghost.keyPackage();
    const error = await refused(a.stageCommit({ add: [invited.keyPackage] }, id(5)), "untrusted_device");
    expect(error.members["device"]).toBe("ghost-phone");
    alice.rules.verifyLeaf = async () => ({ userId: "any", deviceId: crypto.randomUUID() });
    const staged = await a.stageCommit({ add: [invited.keyPackage] }, id(5));
    delete (alice.rules as { verifyLeaf?: unknown }).verifyLeaf;
    const before = b.save();
    await refused(b.receive(staged.commit), "untrusted_device");
    expect(b.save()).toEqual(before);
  });

  it("for messages of another group and of epochs that are gone or not there yet", async () => {
    const [a, b] = await pair();
    const other = await alice.device.createGroup(id(8), POLICY, Math.floor(Date.now() / 1000));
    await refused(b.receive((await other.encrypt(text.encode("x"), id(1))).envelope), "wrong_group");
    const first = await a.encrypt(text.encode("late"), id(1));
    let [left, right] = [first.group, b];
    for (let epoch = 0; epoch < 4; epoch++) {
      const staged = await left.stageCommit({}, id(10 + epoch));
      left = await staged.group.commitAccepted();
      const early = await left.encrypt(text.encode("early"), id(20));
      await refused(right.receive(early.envelope), "future_epoch");
      right = (await right.receive(staged.commit)).group;
      await refused(right.receive(staged.commit), "stale_epoch");
      if (epoch < 2) expect((await right.receive(first.envelope)).received.kind).toBe("application");
    }
    await refused(right.receive(first.envelope), "stale_epoch");
  });
});

describe("proposals of the delivery service", () => {
  it("Remove: nothing is encrypted before it is committed", async () => {
    const [a, b, c] = await trio();
    const proposal = await externalMessage(a, { proposalType: "remove", remove: { removed: 2 } });
    const [pa, pb] = [await a.receive(proposal), await b.receive(proposal)];
    expect(pa.received).toEqual({ kind: "proposal", proposal: "remove", by: { kind: "delivery-service" } });
    await refused(pa.group.encrypt(text.encode("x"), id(1)), "pending_proposals");
    const staged = await pa.group.stageCommit({ remove: [2] }, id(2));
    expect(staged.diff.removed).toMatchObject([{ member: { leaf: 2 }, by: { kind: "delivery-service" } }]);
    expect((await pb.group.receive(staged.commit)).received).toMatchObject({ kind: "commit", removedMe: false });
    const pc = await c.receive(proposal);
    expect((await pc.group.receive(staged.commit)).received).toMatchObject({ removedMe: true });
  });

  it("Add is refused, and so is a proposal by a key that is not pinned", async () => {
    const [a, b] = await pair();
    const { keyPackage } = parseMessage((await carol.keyPackage()).keyPackage, "mls_key_package");
    const add = await externalMessage(a, { proposalType: "add", add: { keyPackage } });
    await refused(b.receive(add), "rule_broken", "group.external.add");
    const remove = await externalMessage(a, { proposalType: "remove", remove: { removed: 1 } });
    const [message] = decodeMlsMessage(remove, 0)!;
    if (message.wireformat !== "mls_public_message") throw new Error("unreachable");
    message.publicMessage.auth.signature[3]! ^= 1;
    await refused(b.receive(encodeMlsMessage(message)), "bad_signature");
  });

  it("a group whose external sender is another one is not joined", async () => {
    const strange = await makeDeliveryService();
    const mallory = await makeDevice(strange, "mallory");
    const invited = await bob.keyPackage();
    const group = await mallory.device.createGroup(id(5), POLICY, Math.floor(Date.now() / 1000));
    const staged = await group.stageCommit({ add: [invited.keyPackage] }, id(1));
    await expect(bob.device.join(staged.welcome!, invited.secrets)).rejects.toBeInstanceOf(CurbsideError);
  });
});

describe("commits that race", () => {
  it("the loser drops its own and takes the winner's", async () => {
    const [a, b] = await pair();
    const [mine, theirs] = [await a.stageCommit({}, id(1)), await b.stageCommit({}, id(2))];
    expect(mine.group.stagedCommit).toEqual(mine.commit);
    const taken = await mine.group.receive(theirs.commit);
    expect(taken.group.stagedCommit).toBeUndefined();
    const winner = await theirs.group.commitAccepted();
    expect(taken.group.epochAuthenticator()).toEqual(winner.epochAuthenticator());
    expect(mine.group.commitRejected().save()).toEqual(a.save());
  });

  it("messages stay readable while a commit of ours waits", async () => {
    const [a, b] = await pair();
    const staged = await a.stageCommit({}, id(1));
    const sent = await b.encrypt(text.encode("meanwhile"), id(3));
    const read = await staged.group.receive(sent.envelope);
    expect(read.received.kind).toBe("application");
    expect((await read.group.commitAccepted()).epoch).toBe(2);
  });
});

describe("keys", () => {
  it("one group value encrypts once", async () => {
    const [a] = await pair();
    await a.encrypt(text.encode("one"), id(1));
    await refused(a.encrypt(text.encode("two"), id(2)), "internal");
  });

  it("a Welcome names the key package it is for, and opens with no other", async () => {
    const [invited, other] = [await bob.keyPackage(), await bob.keyPackage()];
    const staged = await (await start()).stageCommit({ add: [invited.keyPackage] }, id(1));
    expect(Device.welcomeReferences(staged.welcome!)).toEqual([invited.reference]);
    await expect(bob.device.join(staged.welcome!, other.secrets)).rejects.toBeInstanceOf(CurbsideError);
  });
});

describe("padding", () => {
  it("hides the size of a text in its bucket", async () => {
    const [a] = await pair();
    const sizes = new Set<number>();
    let group = a;
    for (const length of [1, 50, 180]) {
      const sent = await group.encrypt(new Uint8Array(length).fill(65), id(length));
      sizes.add(sent.envelope.length);
      group = sent.group;
    }
    expect(sizes.size).toBe(1);
    const long = await group.encrypt(new Uint8Array(64 * 1024), id(1));
    expect(long.envelope.length).toBeLessThanOrEqual(96 * 1024);
  });

  it("grows in few steps", () => {
    const steps = new Set(Array.from({ length: 65 * 1024 }, (_, length) => paddedSize(length)));
    expect([...steps]).toEqual([256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 49152, 65536, 81920]);
  });
});
