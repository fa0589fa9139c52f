import { afterEach, beforeEach, expect, it } from "vitest";
import { openAttachment } from "./attachments";
import { SecretBytes } from "./crypto/secret";
import { hashFile, openBytes } from "./crypto/stream_aead";
import { EnginePerson, Organization } from "./testing/people";
import { Transport } from "./transport";
import * as content from "./wire/content";

const NOBODY_LISTENS = "http://127.0.0.1:9";
const crypto = {
  hashFile,
  openBytes: (key: Uint8Array, size: number, sealed: Uint8Array) => openBytes(new SecretBytes(key), size, sealed),
};
let alice: EnginePerson;

beforeEach(async () => {
  alice = await EnginePerson.make(await Organization.found(), "Alice");
});

afterEach(() => alice.close());

it.each(["https://elsewhere.example/x", "curbside-blob:../audit/export", "curbside-blob:", "curbside-blob:x?y=1"])(
  "asks the server for nothing but a blob by its id: %s",
  async (url) => {
    const transport = new Transport(NOBODY_LISTENS, async () => "proof", { now: Date.now });
    const of = { contentType: "image/jpeg", size: 9, key: new Uint8Array(16), contentHash: new Uint8Array(32) };
    const opened = openAttachment(content.blob(url, of), alice.vault, transport, crypto);
    // Had it asked, it would hear peer_unavailable.
    await expect(opened).rejects.toMatchObject({ code: expect.stringMatching(/^(malformed|not_found)$/) });
  },
);
