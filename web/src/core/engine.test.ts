import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CurbsideError } from "./errors";
import { decodeBase64url, makeId } from "./ids";
import { EnginePerson, Organization } from "./testing/people";
import { text } from "./wire/content";
import type { Entry } from "./wire/frames.generated";
import { encodeGroupPolicy, makeDirectPolicy } from "./wire/group_policy";

let organization: Organization;
let alice: EnginePerson;
let bob: EnginePerson;
let id: string;
/** The conversation's log from sequence 2 on; the commit that added Bob is number 1. */
let log: Entry[];

beforeEach(async () => {
  organization = await Organization.found();
  alice = await EnginePerson.make(organization, "Alice");
  bob = await EnginePerson.make(organization, "Bob");
  const [keyPackage] = await bob.engine.makeKeyPackages(1, Date.now());
  const policy = encodeGroupPolicy(makeDirectPolicy(alice.userId, bob.userId));
  const made = await alice.engine.create({ kind: "direct", policy, title: "" }, Date.now());
  id = made.conversation_id;
  const { entry, welcome } = await alice.commit(id, [keyPackage!]);
  await alice.hear({ ...entry, sequence: 1 });
  await bob.engine.received(
    { type: "queue", items: [{ position: 1, kind: 0, conversation: id, sequence: 1, payload: welcome }] },
    Date.now(),
  );
  await alice.caughtUp();
  await bob.caughtUp();
  log = [];
});

afterEach(() => {
  alice.close();
  bob.close();
});

async function aliceSays(...texts: string[]): Promise<void> {
  for (const text of texts) {
    const { entry, request } = await alice.write(id, text);
    const sequence = log.length + 2;
    log.push({ ...entry, sequence });
    await alice.engine.received({ type: "stored", items: [{ request, sequence, receivedAt: Date.now() }] }, Date.now());
  }
}

describe("receiving", () => {
  it("applies each entry once, whatever is repeated", async () => {
    await aliceSays("one", "two", "three");
    await bob.hear(log[0]!, log[0]!, log[1]!);
    await bob.hear(...log);
    await bob.hear(...log);
    expect(await bob.texts(id)).toEqual(["one", "two", "three"]);
    expect(bob.vault.rows.getConversation(id).cursor).toBe(4);
  });

  it("sees a gap and asks again from where it stands; nothing behind the gap is applied", async () => {
    await aliceSays("one", "two", "three");
    const effects = await bob.hear(log[0]!, log[2]!);
    expect(await bob.texts(id)).toEqual(["one"]);
    const asked = effects.flatMap((effect) => (effect.kind === "send" && effect.frame.type === "sync" ? [effect.frame] : []));
    expect(asked).toEqual([{ type: "sync", cursors: { [id]: 2 }, queue: 1 }]);
    await bob.hear(log[1]!, log[2]!);
    expect(await bob.texts(id)).toEqual(["one", "two", "three"]);
  });

  it("notes what cannot be opened, says so, and goes on", async () => {
    await aliceSays("one", "two");
    const broken = { ...log[0]!, envelope: log[0]!.envelope.map((byte, index) => (index === 90 ? byte ^ 1 : byte)) };
    const effects = await bob.hear(broken, log[1]!);
    expect(effects.some((effect) => effect.kind === "notice")).toBe(true);
    expect(await bob.texts(id)).toEqual(["", "two"]);
    expect(bob.views.page(id, 10).messages[0]).toMatchObject({ kind: "unknown", problem: { code: "decryption_failed" } });
  });

  it("refuses an envelope under another message id than the one that was signed, and a replay under a new one", async () => {
    await aliceSays("one");
    const messageId = crypto.getRandomValues(new Uint8Array(16));
    await bob.hear({ ...log[0]!, messageId });
    expect(bob.views.page(id, 10).messages).toMatchObject([{ problem: { members: { check: "client.entry.message_id" } } }]);
    await bob.hear({ ...log[0]!, sequence: 3 });
    expect(bob.views.page(id, 10).messages.at(-1)).toMatchObject({ problem: { code: "replayed" } });
  });

  it("stops a conversation whose handshake is refused, and encrypts nothing more to it", async () => {
    const carol = await EnginePerson.make(organization, "Carol");
    const [keyPackage] = await carol.engine.makeKeyPackages(1, Date.now());
    await expect(alice.commit(id, [keyPackage!])).rejects.toMatchObject({ code: "rule_broken" });
    await aliceSays("one");
    const forged: Entry = { ...log[0]!, kind: 1 };
    const effects = await bob.hear(forged);
    expect(effects.some((effect) => effect.kind === "notice")).toBe(true);
    expect((await bob.views.conversation(id)).alarm).toMatchObject({ code: "rule_broken" });
    bob.effects = [];
    await bob.engine.write(id, text("to whom?"), Date.now());
    bob.keep(await bob.engine.release(id));
    expect(bob.effects.filter((effect) => effect.kind === "send" && effect.frame.type === "send")).toEqual([]);
    expect(bob.vault.rows.cursors()).toEqual({});
    carol.close();
  });
});

describe("sending", () => {
  it("saves before it sends: a crash in between repeats the same bytes", async () => {
    const { entry } = await alice.write(id, "never lost");
    await alice.open();
    await alice.caughtUp();
    expect(alice.takeSend(id).entry.envelope).toEqual(entry.envelope);
    expect(alice.views.page(id, 1).messages[0]).toMatchObject({ text: "never lost", delivery: "sending" });
  });

  it("finds its own message in the log when the answer was lost", async () => {
    const { entry } = await alice.write(id, "was stored");
    await alice.open();
    alice.keep(alice.engine.connected());
    await alice.hear({ ...entry, sequence: 2 });
    alice.keep(await alice.engine.received({ type: "caught_up" }, Date.now()));
    expect(alice.effects.filter((effect) => effect.kind === "send" && effect.frame.type === "send")).toEqual([]);
    expect(alice.views.page(id, 1).messages[0]).toMatchObject({ delivery: "sent", sequence: 2 });
    expect(alice.vault.rows.countWaiting()).toBe(0);
  });

  it("after a stale epoch encrypts again, under the same message id, once it has caught up", async () => {
    const before = await alice.write(id, "across the epoch");
    const renewal = await bob.engine.commit(id, {});
    if (renewal[0]?.kind !== "post-commit") throw new Error("no commit");
    const commit: Entry = {
      conversation: id,
      sequence: 2,
      kind: 1,
      messageId: decodeBase64url(renewal[0].request.message_id),
      receivedAt: 0,
      envelope: decodeBase64url(renewal[0].request.commit),
    };
    const members = { current_epoch: 2 };
    const refusal = { type: "refused", request: before.request, code: "stale_epoch", detail: "", members } as const;
    const healing = await alice.engine.received(refusal, Date.now());
    expect(healing).toEqual([{ kind: "send", frame: { type: "sync", cursors: { [id]: 1 }, queue: 0 } }]);
    await bob.hear(commit);
    await alice.hear(commit);
    const again = alice.takeSend(id);
    expect(again.entry.messageId).toEqual(before.entry.messageId);
    expect(again.entry.envelope).not.toEqual(before.entry.envelope);
    await bob.hear({ ...again.entry, sequence: 3 });
    expect(await bob.texts(id)).toEqual(["across the epoch"]);
  });

  it("keeps the order of what one person wrote when the epoch changes in between", async () => {
    await alice.write(id, "first");
    const renewal = await bob.engine.commit(id, {});
    if (renewal[0]?.kind !== "post-commit") throw new Error("no commit");
    const { request } = renewal[0];
    const [messageId, envelope] = [decodeBase64url(request.message_id), decodeBase64url(request.commit)];
    await alice.hear({ conversation: id, sequence: 2, kind: 1, messageId, receivedAt: 0, envelope });
    alice.effects = [];
    const { effects } = await alice.engine.write(id, text("second"), Date.now());
    expect(effects.filter((effect) => effect.kind === "send")).toEqual([]);
  });

  it("renews the key package of last resort, and forgets those that nobody can use any more", async () => {
    const now = Date.now();
    expect(await alice.engine.renewLastResort(now)).toBeInstanceOf(Uint8Array);
    expect(await alice.engine.renewLastResort(now + 1000)).toBeUndefined();
    const later = now + 200 * 86_400_000;
    expect(await alice.engine.renewLastResort(later)).toBeInstanceOf(Uint8Array);
    expect(alice.vault.db.find("select count(*) as n from key_package")).toEqual({ n: 1 });
  });

  it("gives a message up only when the server will never take it, and tries again when asked", async () => {
    const { request } = await alice.write(id, "too much");
    const refusal = { type: "refused", request, code: "too_large", detail: "", members: { limit: 1 } } as const;
    alice.keep(await alice.engine.received(refusal, Date.now()));
    const [failed] = alice.views.page(id, 1).messages;
    expect(failed).toMatchObject({ delivery: "failed", problem: { code: "too_large" } });
    alice.effects = [];
    alice.keep(await alice.engine.retry(failed!.id));
    expect(alice.takeSend(id).entry.messageId).toHaveLength(16);
    expect(alice.views.page(id, 1).messages[0]).toMatchObject({ delivery: "sending" });
  });

  it("stops a conversation whose log ends before what this device has, and says why", async () => {
    await aliceSays("before", "lost");
    await bob.hear(...log);
    const refusal = (last_sequence: number) => {
      const members = { conversation: id, last_sequence };
      return { type: "refused", request: 0, code: "log_rolled_back", detail: "", members } as const;
    };
    await bob.engine.received(refusal(3), Date.now());
    expect(bob.vault.rows.getConversation(id)).toMatchObject({ alarm: "", cursor: 3 });
    const effects = await bob.engine.received(refusal(2), Date.now());
    expect(effects).toContainEqual(expect.objectContaining({ kind: "notice", conversation: id }));
    expect(bob.vault.rows.getConversation(id).alarm).toContain("log_rolled_back");
  });

  it("keeps own and others' messages in the order of the log", async () => {
    const first = await alice.write(id, "mine");
    const theirs = await bob.write(id, "theirs");
    await alice.hear({ ...theirs.entry, sequence: 3 });
    expect(await alice.texts(id)).toEqual(["mine"]);
    const stored = { request: first.request, sequence: 2, receivedAt: 1 };
    alice.keep(await alice.engine.received({ type: "stored", items: [stored] }, Date.now()));
    await alice.hear({ ...theirs.entry, sequence: 3 });
    expect(await alice.texts(id)).toEqual(["mine", "theirs"]);
  });
});

describe("a step that fails", () => {
  it("changes nothing, in the vault or in memory", async () => {
    await aliceSays("one");
    const before = bob.vault.rows.getConversation(id);
    const full = new CurbsideError("storage_full");
    const failing = bob.vault.transaction(() => Promise.reject(full));
    await expect(failing).rejects.toBe(full);
    await expect(bob.engine.write(makeId(), text("x"), 0)).rejects.toMatchObject({ code: "not_found" });
    expect(bob.vault.rows.getConversation(id)).toEqual(before);
    await bob.hear(log[0]!);
    expect(await bob.texts(id)).toEqual(["one"]);
  });
});
