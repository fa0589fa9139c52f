import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PASSPHRASE, TestBrowser } from "./browser";
import { TestServer } from "./server";

let server: TestServer;
const browsers: TestBrowser[] = [];

async function join(name: string, role = "physician"): Promise<TestBrowser> {
  const browser = await TestBrowser.join(server.origin, server.invite(role), name);
  browsers.push(browser);
  return browser;
}

beforeAll(async () => {
  server = await TestServer.start();
}, 60_000);

afterAll(async () => {
  for (const browser of browsers) await browser.close();
  await server.stop();
});

describe("two people", () => {
  it("join by invites, find one another, and talk, with receipts", async () => {
    const alice = await join("Dr. Alice Adler");
    const bob = await join("Bob Berger");
    const id = await alice.app.startConversation({ userIds: [await alice.findPerson("Bob Berger")], title: "" });
    const sent = await alice.app.sendText(id, "Can you look at bed 4?");
    await bob.eventually(async () => (await bob.app.conversations()).some((row) => row.unread === 1));
    const [row] = await bob.app.conversations();
    expect(row).toMatchObject({ id, kind: "direct", title: "Dr. Alice Adler", lastText: "Can you look at bed 4?" });
    await alice.eventually(async () => (await alice.messages(id)).at(-1)?.delivery === "delivered");
    await bob.app.markRead(id);
    await alice.eventually(async () => (await alice.messages(id)).at(-1)?.delivery === "read");
    const [question] = await bob.messages(id);
    await bob.app.sendText(id, "On my way", question?.id);
    await alice.eventually(async () => (await alice.texts(id)).includes("On my way"));
    const answer = (await alice.messages(id)).at(-1);
    expect(answer?.inReplyTo).toEqual({ id: sent, sender: "Dr. Alice Adler", text: "Can you look at bed 4?" });
    expect(await alice.app.safetyNumber(id)).toBe(await bob.app.safetyNumber(id));
    expect(await alice.app.startConversation({ userIds: [await alice.findPerson("Bob Berger")], title: "" })).toBe(id);
  }, 60_000);
});
