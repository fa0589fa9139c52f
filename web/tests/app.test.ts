import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PASSPHRASE, TestBrowser } from "./browser";
import { PythonDevice, TestServer } from "./server";

let server: TestServer;
let alice: TestBrowser;
let bob: TestBrowser;
let python: PythonDevice;
const folder = mkdtempSync(joinPath(tmpdir(), "curbside-python-"));
const MINUTE = 60_000;

async function join(name: string, role: string): Promise<TestBrowser> {
  return TestBrowser.join(server.origin, server.invite(role), name);
}

beforeAll(async () => {
  server = await TestServer.start();
  alice = await join("Dr. Alice Adler", "physician");
  bob = await join("Bob Berger", "nurse");
  python = PythonDevice.join(folder, server.invite("nurse"), "Petra Python");
}, 2 * MINUTE);

afterAll(async () => {
  for (const browser of [alice, bob]) await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

async function direct(): Promise<string> {
  return alice.app.startConversation({ userIds: [await alice.findPerson("Bob Berger")], title: "" });
}

describe("two people", () => {
  it("find one another and talk, with receipts and replies", async () => {
    const id = await direct();
    const sent = await alice.app.sendText(id, "Can you look at bed 4?");
    await bob.eventually(async () => (await bob.app.conversations()).some((row) => row.unread === 1));
    const [row] = await bob.app.conversations();
    expect(row).toMatchObject({ id, kind: "direct", title: "Dr. Alice Adler", lastText: "Can you look at bed 4?" });
    await alice.eventually(async () => (await alice.messages(id)).at(-1)?.delivery === "delivered");
    await bob.app.markRead(id);
    expect((await bob.app.conversation(id)).unread).toBe(0);
    await alice.eventually(async () => (await alice.messages(id)).at(-1)?.delivery === "read");
    const [question] = await bob.messages(id);
    await bob.app.sendText(id, "On my way", question?.id);
    await alice.eventually(async () => (await alice.texts(id)).includes("On my way"));
    const answer = (await alice.messages(id)).at(-1);
    expect(answer?.inReplyTo).toEqual({ id: sent, sender: "Dr. Alice Adler", text: "Can you look at bed 4?" });
    expect(await alice.app.safetyNumber(id)).toBe(await bob.app.safetyNumber(id));
  }, MINUTE);

  it("have one direct conversation, whoever starts it", async () => {
    const id = await direct();
    expect(await direct()).toBe(id);
    const me = await bob.findPerson("Dr. Alice Adler");
    expect(await bob.app.startConversation({ userIds: [me], title: "" })).toBe(id);
  }, MINUTE);

  it("page through what was said, oldest to newest", async () => {
    const id = await direct();
    const before = (await alice.messages(id)).length;
    for (let number = 0; number < 12; number++) await alice.app.sendText(id, `line ${number}`);
    await alice.eventually(async () => (await alice.messages(id)).every((message) => message.delivery !== "sending"));
    const newest = await alice.app.messages(id, { limit: 5 });
    expect(newest.messages.map((message) => message.text)).toEqual([7, 8, 9, 10, 11].map((n) => `line ${n}`));
    expect(newest.hasOlder).toBe(true);
    const older = await alice.app.messages(id, { limit: 200, before: newest.messages[0]!.id });
    expect(older.messages).toHaveLength(before + 7);
    expect(older.hasOlder).toBe(false);
  }, MINUTE);
});

describe("a group with a device of the Python client", () => {
  let id: string;

  it("is started in the browser, named, and grows", async () => {
    const [bobId, petraId] = [await alice.findPerson("Bob Berger"), await alice.findPerson("Petra Python")];
    id = await alice.app.startConversation({ userIds: [petraId], title: "Ward 4" });
    await alice.app.sendText(id, "before Bob");
    await alice.eventually(async () => (await alice.messages(id)).every((message) => message.sequence > 0));
    await alice.app.addPeople(id, [bobId]);
    await bob.eventually(async () => (await bob.app.conversations()).some((row) => row.id === id));
    await alice.app.sendText(id, "after Bob");
    await bob.eventually(async () => (await bob.texts(id)).includes("after Bob"));
    expect(await bob.texts(id)).not.toContain("before Bob");
    python.catchUp();
    expect(python.receive("Ward 4").map((message) => message.text)).toEqual(
      expect.arrayContaining(["before Bob", "after Bob"]),
    );
    const notes = (await alice.messages(id)).filter((message) => message.kind === "note");
    expect(notes.map((note) => note.text)).toContain("added Bob Berger");
    await expect(bob.app.addPeople(id, [petraId])).resolves.toBeUndefined();
  }, MINUTE);

  it("carries words of the Python client to both browsers, and their receipts back", async () => {
    python.send("Ward 4", "Grüße from Python 🐍");
    for (const reader of [alice, bob]) {
      await reader.eventually(async () => (await reader.texts(id)).includes("Grüße from Python 🐍"));
      const message = (await reader.messages(id)).at(-1);
      expect(message).toMatchObject({ isMine: false, kind: "text", sender: { name: "Petra Python", role: "nurse" } });
    }
  }, MINUTE);

  it("only an administrator adds people", async () => {
    const late = await join("Lena Late", "clerk");
    await expect(bob.app.addPeople(id, [await bob.findPerson("Lena Late")])).rejects.toMatchObject({
      code: "rule_broken",
      members: { check: "group.add" },
    });
    await late.close();
  }, MINUTE);

  it("is started by the Python client too", async () => {
    python.start(await alice.findPerson("Dr. Alice Adler"), "Night shift");
    await alice.eventually(async () => (await alice.app.conversations()).some((row) => row.title === "Night shift"));
    const row = (await alice.app.conversations()).find((found) => found.title === "Night shift");
    await alice.app.sendText(row!.id, "I am on call");
    await alice.eventually(async () => (await alice.messages(row!.id)).at(-1)?.delivery === "sent");
    expect(python.receive("Night shift").map((message) => message.text)).toContain("I am on call");
  }, MINUTE);
});

describe("a device that is removed", () => {
  it("gets nothing that is written afterwards: the removal is committed before anything is sent", async () => {
    const lost = PythonDevice.join(mkdtempSync(joinPath(folder, "lost-")), server.invite("nurse"), "Lou Lost");
    const [louId, bobId] = [await alice.findPerson("Lou Lost"), await alice.findPerson("Bob Berger")];
    const id = await alice.app.startConversation({ userIds: [bobId, louId], title: "Ward 9" });
    await bob.eventually(async () => (await bob.app.conversations()).some((row) => row.id === id));
    await alice.app.sendText(id, "all three read this");
    lost.catchUp();
    expect(lost.receive("Ward 9").map((message) => message.text)).toContain("all three read this");
    lost.revokeItself();
    await alice.app.sendText(id, "only two read this");
    await bob.eventually(async () => (await bob.texts(id)).includes("only two read this"));
    await alice.eventually(async () => (await alice.messages(id)).every((message) => message.sequence > 0));
    for (const reader of [alice, bob]) {
      const row = await reader.app.conversation(id);
      expect(row.members.map((member) => member.name).sort()).toEqual(["Bob Berger", "Dr. Alice Adler"]);
      expect(row.alarm).toBeUndefined();
    }
    const [removal, text] = (await bob.messages(id)).slice(-2);
    expect(removal).toMatchObject({ kind: "note", text: "removed Lou Lost" });
    expect(text!.sequence).toBeGreaterThan(removal!.sequence);
  }, MINUTE);
});

describe("locking", () => {
  it("leaves nothing to read, and gives everything back to the passphrase alone", async () => {
    const id = await direct();
    await bob.app.saveDraft(id, "half a sentence");
    await bob.reload();
    expect(await bob.app.state()).toMatchObject({ phase: "locked", connection: "offline" });
    await expect(bob.app.conversations()).rejects.toMatchObject({ code: "vault_locked" });
    await expect(bob.app.unlock("another passphrase, not this one")).rejects.toMatchObject({ code: "wrong_passphrase" });
    await alice.app.sendText(id, "sent while Bob was away");
    await bob.app.unlock(PASSPHRASE);
    await bob.until((state) => state.connection === "online");
    await bob.eventually(async () => (await bob.texts(id)).includes("sent while Bob was away"));
    expect((await bob.app.conversation(id)).draft).toBe("half a sentence");
    expect(await bob.app.state()).toMatchObject({ phase: "open", me: { name: "Bob Berger" } });
  }, MINUTE);

  it("there is one vault: a second sign-up is refused", async () => {
    const link = server.invite("nurse");
    await expect(bob.app.join({ link, name: "Other", passphrase: PASSPHRASE })).rejects.toMatchObject({ code: "integrity" });
  }, MINUTE);
});

describe("a server that goes away", () => {
  it("loses nothing: what was written goes out once, by itself", async () => {
    const id = await direct();
    await server.kill();
    await alice.until((state) => state.connection !== "online");
    for (const number of [1, 2, 3]) await alice.app.sendText(id, `written offline ${number}`);
    await alice.until((state) => state.waiting === 3);
    expect((await alice.messages(id)).slice(-3).every((message) => message.delivery === "sending")).toBe(true);
    await server.resume();
    alice.app.poke();
    bob.app.poke();
    await alice.until((state) => state.waiting === 0);
    await bob.eventually(async () => (await bob.texts(id)).includes("written offline 3"));
    const arrived = (await bob.texts(id)).filter((text) => text.startsWith("written offline"));
    expect(arrived).toEqual([1, 2, 3].map((number) => `written offline ${number}`));
  }, MINUTE);

  it("a device that was closed while offline sends after the next unlock", async () => {
    const id = await direct();
    await server.kill();
    await alice.until((state) => state.connection !== "online");
    await alice.app.sendText(id, "kept in the vault");
    await alice.reload();
    await alice.app.unlock(PASSPHRASE);
    expect((await alice.texts(id)).at(-1)).toBe("kept in the vault");
    await server.resume();
    alice.app.poke();
    bob.app.poke();
    await bob.eventually(async () => (await bob.texts(id)).includes("kept in the vault"));
  }, MINUTE);

  it("a message that was not sent can be taken back", async () => {
    const id = await direct();
    await server.kill();
    await alice.until((state) => state.connection !== "online");
    const message = await alice.app.sendText(id, "better not");
    await alice.app.discard(message);
    expect(await alice.texts(id)).not.toContain("better not");
    await server.resume();
    alice.app.poke();
    bob.app.poke();
    await alice.until((state) => state.connection === "online" && state.waiting === 0);
    await alice.app.sendText(id, "this instead");
    await bob.eventually(async () => (await bob.texts(id)).includes("this instead"));
    expect(await bob.texts(id)).not.toContain("better not");
  }, MINUTE);
});

describe("invites", () => {
  it("work once, are shown before, and are refused when the link was changed", async () => {
    const link = server.invite("patient");
    const page = await TestBrowser.open(server.origin);
    expect(await page.app.state()).toMatchObject({ phase: "empty" });
    expect(await page.app.previewInvite(link)).toMatchObject({ organization: "Sankt Elsewhere", role: "patient" });
    const weak = page.app.join({ link, name: "Pat Patient", passphrase: "password1234567" });
    await expect(weak).rejects.toMatchObject({ code: "rule_broken" });
    const swapped = link.slice(0, -6) + (link.endsWith("AAAAAA") ? "BBBBBB" : "AAAAAA");
    await expect(page.app.join({ link: swapped, name: "Pat Patient", passphrase: PASSPHRASE })).rejects.toMatchObject({
      code: "untrusted_device",
    });
    expect(await page.app.state()).toMatchObject({ phase: "empty" });
    await page.app.join({ link, name: "Pat Patient", passphrase: PASSPHRASE });
    await page.until((state) => state.connection === "online");
    const second = await TestBrowser.open(server.origin);
    await expect(second.app.join({ link, name: "Thief", passphrase: PASSPHRASE })).rejects.toMatchObject({
      code: "invite_used",
    });
    await page.close();
    await second.close();
  }, MINUTE);
});
