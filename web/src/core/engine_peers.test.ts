// The engine against members of the organisation who misuse what they may do. Nothing of theirs stops a device. Twin of
// tests/unit/client/test_engine_peers.py.

import { afterEach, beforeEach, expect, it } from "vitest";
import { refusedOf } from "./testing/people";
import { EnginePerson, Organization, gather } from "./testing/people";
import { encodeId } from "./ids";
import * as content from "./wire/content";
import type { Entry } from "./wire/frames.generated";
import { makeDirectPolicy, makeGroupPolicy } from "./wire/group_policy";

let alice: EnginePerson;
let bob: EnginePerson;
let mallory: EnginePerson;

beforeEach(async () => {
  const organization = await Organization.found();
  alice = await EnginePerson.make(organization, "Alice");
  bob = await EnginePerson.make(organization, "Bob");
  mallory = await EnginePerson.make(organization, "Mallory");
});

afterEach(() => {
  for (const person of [alice, bob, mallory]) person.close();
});

/** An entry of a member who chose its message id, and its bytes. */
async function sendUnder(
  speaker: EnginePerson,
  conversation: string,
  of: { readonly messageId: Uint8Array; readonly sequence: number; readonly data: Uint8Array },
): Promise<Entry> {
  const sealed = await (await speaker.groups.get(conversation)).encrypt(of.data, of.messageId);
  await speaker.vault.transaction(() => speaker.groups.save(conversation, sealed.group));
  const { messageId, sequence } = of;
  return { conversation, sequence, kind: 0, messageId, receivedAt: Date.now(), envelope: sealed.envelope };
}

async function say(speaker: EnginePerson, conversation: string, text: string, sequence: number): Promise<Entry> {
  const { entry, request } = await speaker.write(conversation, text);
  const items = [{ request, sequence, receivedAt: Date.now() }];
  await speaker.engine.received({ type: "stored", items }, Date.now());
  return { ...entry, sequence };
}

function words(text: string): Uint8Array {
  return content.encode(content.text(text));
}

it("hides no message behind a message id of another conversation", async () => {
  const first = await gather(alice, [bob, mallory], makeGroupPolicy(alice.userId));
  const second = await gather(mallory, [bob], makeGroupPolicy(mallory.userId));
  const wanted = await say(alice, first, "give 5 mg", 2);
  const { messageId } = wanted;
  await bob.hear(await sendUnder(mallory, second, { messageId, sequence: 2, data: words("in the way") }));
  await bob.hear(wanted, await say(alice, first, "then stop", 3));
  expect((await bob.texts(first)).slice(-2)).toEqual(["give 5 mg", "then stop"]);
  expect((await bob.texts(second)).slice(-1)).toEqual(["in the way"]);
});

it("is not stopped by a commit under the id of a message", async () => {
  const first = await gather(alice, [bob, mallory], makeGroupPolicy(alice.userId));
  const second = await gather(mallory, [bob], makeGroupPolicy(mallory.userId));
  const { messageId } = await say(alice, first, "give 5 mg", 2);
  await bob.hear(await sendUnder(mallory, second, { messageId, sequence: 2, data: words("one") }));
  const [keyPackage] = await alice.engine.makeKeyPackages(1, Date.now());
  const { entry } = await mallory.commit(second, [keyPackage!]);
  await bob.hear({ ...entry, messageId, sequence: 3 });
  expect((await bob.views.conversation(second)).members).toHaveLength(3);
});

it("settles an own message that waits by its own conversation only", async () => {
  const first = await gather(alice, [bob], makeGroupPolicy(alice.userId));
  const second = await gather(mallory, [alice], makeGroupPolicy(mallory.userId));
  const { entry } = await alice.write(first, "give 5 mg");
  const { messageId } = entry;
  await alice.hear(await sendUnder(mallory, second, { messageId, sequence: 2, data: words("in the way") }));
  const id = encodeId(messageId);
  expect(alice.vault.rows.findMessage(id)).toMatchObject({ sequence: 0, delivery: "sending" });
  expect(alice.vault.rows.findOutbox(id)).toBeDefined();
});

it("calls a direct conversation by the other person's name, and a group in one line that can be seen", async () => {
  const direct = await gather(mallory, [bob], makeDirectPolicy(mallory.userId, bob.userId));
  const title = (text: string): Uint8Array => content.encode(content.conversationTitle(text));
  const messageId = crypto.getRandomValues(new Uint8Array(16));
  await bob.hear(await sendUnder(mallory, direct, { messageId, sequence: 2, data: title("Alice") }));
  expect((await bob.views.conversation(direct)).title).toBe("Mallory");
  const group = await gather(mallory, [bob], makeGroupPolicy(mallory.userId));
  const long = `  Ward\u202e4\u0007\n ${"x".repeat(500)}`;
  await bob.hear(await sendUnder(mallory, group, { messageId, sequence: 2, data: title(long) }));
  const shown = (await bob.views.conversation(group)).title;
  expect(shown).toMatch(/^Ward 4 xxx/);
  expect(shown.length).toBeLessThanOrEqual(128);
});

it.each([
  ["nothing", new Uint8Array()],
  ["too much", new Uint8Array(70_000)],
  ["deep", new Uint8Array(60_000).fill(0x81)],
  ["tags", new Uint8Array(60_000).fill(0xc1)],
  ["endless", new Uint8Array(60_000).fill(0x9f)],
])("marks authentic content that cannot be read and goes on: %s", async (_, data) => {
  const conversation = await gather(alice, [bob, mallory], makeGroupPolicy(alice.userId));
  const messageId = crypto.getRandomValues(new Uint8Array(16));
  const bad = await sendUnder(mallory, conversation, { messageId, sequence: 2, data });
  await bob.hear(bad, await say(alice, conversation, "goes on", 3));
  expect((await bob.texts(conversation)).slice(-2)).toEqual(["", "goes on"]);
});

it("notices when the server gives one number to two messages", async () => {
  const conversation = await gather(alice, [bob], makeGroupPolicy(alice.userId));
  await say(alice, conversation, "mine", 2);
  const other = await say(bob, conversation, "theirs", 2);
  await alice.hear(other);
  expect((await alice.views.conversation(conversation)).alarm).toMatchObject({ code: "rule_broken" });
});

async function removeBob(conversation: string, sequence: number): Promise<void> {
  const { members } = await alice.groups.get(conversation);
  const leaf = members.find(({ identity }) => identity.userId === bob.userId)!.leaf;
  const { entry } = await alice.commit(conversation, { remove: [leaf] });
  await alice.hear({ ...entry, sequence });
  await bob.hear({ ...entry, sequence });
}

it("lets who was removed and is added again read on", async () => {
  const conversation = await gather(alice, [bob], makeGroupPolicy(alice.userId));
  await removeBob(conversation, 2);
  expect((await bob.views.conversation(conversation)).alarm).toMatchObject({ code: "gone" });
  const [keyPackage] = await bob.engine.makeKeyPackages(1, Date.now());
  const { entry, welcome } = await alice.commit(conversation, [keyPackage!]);
  await alice.hear({ ...entry, sequence: 3 });
  await bob.welcome(conversation, 3, welcome);
  await bob.hear(await say(alice, conversation, "after", 4));
  expect((await bob.texts(conversation)).at(-1)).toBe("after");
});

it.each(["direct", "group"] as const)("is not led into another group under the same id: %s", async (kind) => {
  const conversation = await gather(alice, [bob], makeGroupPolicy(alice.userId));
  await removeBob(conversation, 2);
  const before = bob.vault.rows.getConversation(conversation);
  const policy = kind === "group" ? makeGroupPolicy(mallory.userId) : makeDirectPolicy(mallory.userId, bob.userId);
  const welcome = await mallory.forge(conversation, policy, bob);
  const effects = await bob.welcome(conversation, 9, welcome);
  expect(refusedOf(effects)).toEqual(["client.rejoin"]);
  expect(bob.vault.rows.getConversation(conversation)).toEqual(before);
});

it.each([
  ["a bomb", [0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3], false],
  ["no picture", [0x3c, 0x73, 0x76, 0x67, 0x3e], false],
  ["a small JPEG", [0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0, 72, 0, 96, 3, 1, 0x22, 0], true],
])("hands the page no preview that is not a small JPEG: %s", async (_, bytes, shown) => {
  const conversation = await gather(mallory, [bob], makeGroupPolicy(mallory.userId));
  const of = { contentType: "image/jpeg", size: 9, key: new Uint8Array(16), contentHash: new Uint8Array(32) };
  const thumbnail = content.singlePart("image/jpeg", Uint8Array.from(bytes));
  const photo = content.photo(content.blob(`${content.BLOB_SCHEME}x`, of), { width: 9, height: 9, thumbnail });
  const messageId = crypto.getRandomValues(new Uint8Array(16));
  await bob.hear(await sendUnder(mallory, conversation, { messageId, sequence: 2, data: content.encode(photo) }));
  const [attachment] = bob.views.page(conversation, 9).messages.at(-1)!.attachments;
  expect(attachment?.thumbnail !== undefined).toBe(shown);
});
