// Uploads against a server that keeps parts as the real one does, and troubles that it makes.

import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { hashFile } from "./crypto/stream_aead";
import { makeId } from "./ids";
import { sameBytes } from "./mls/saved";
import { EnginePerson, Organization, gather } from "./testing/people";
import { Transport } from "./transport";
import { Uploads } from "./uploads";
import * as content from "./wire/content";
import { makeGroupPolicy } from "./wire/group_policy";
import { BLOB_CHUNK_BYTES } from "./wire/limits.generated";

const PART = BLOB_CHUNK_BYTES;

/** One upload at a time; `trouble` may answer a part in its own way. */
class Keeper {
  readonly began: string[] = [];
  readonly offsets: number[] = [];
  held: Uint8Array = new Uint8Array(0);
  size = 0;
  trouble: (part: number) => { status: number; code: string } | undefined = () => undefined;
  #server!: Server;

  async start(): Promise<string> {
    this.#server = createServer((request, response) => void this.#answer(request, response));
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    if (request.method === "POST") {
      this.size = (JSON.parse(body.toString()) as { size: number }).size;
      this.held = new Uint8Array(0);
      this.began.push(makeId());
    } else {
      const offset = Number(request.headers["upload-offset"]);
      this.offsets.push(offset);
      const trouble = this.trouble(this.offsets.length);
      if (trouble !== undefined) {
        if (trouble.code === "blob_corrupt") this.held = new Uint8Array(0);
        problem(response, trouble.status, trouble.code, {});
        return;
      }
      if (offset !== this.held.length) {
        problem(response, 409, "offset_conflict", { offset: this.held.length });
        return;
      }
      this.held = new Uint8Array(Buffer.concat([this.held, body]));
    }
    const answer = { blob_id: this.began.at(-1), offset: this.held.length, chunk_bytes: PART, complete: false };
    response.end(JSON.stringify(answer));
  }
}

function problem(response: ServerResponse, status: number, code: string, members: object): void {
  response.writeHead(status, { "content-type": "application/problem+json" });
  response.end(JSON.stringify({ type: `urn:curbside:problem:${code}`, title: "", status, detail: "", ...members }));
}

let alice: EnginePerson;
let keeper: Keeper;
let transport: Transport;
let conversation: string;
const file = Uint8Array.from({ length: 2 * PART + 5 }, (_, at) => (at * 31 + (at >> 8)) & 255);

beforeEach(async () => {
  const organization = await Organization.found();
  alice = await EnginePerson.make(organization, "Alice");
  const bob = await EnginePerson.make(organization, "Bob");
  conversation = await gather(alice, [bob], makeGroupPolicy(alice.userId));
  bob.close();
  keeper = new Keeper();
  transport = new Transport(await keeper.start(), async () => "proof", { now: Date.now });
  transport.session = { token: "t" } as NonNullable<typeof transport.session>;
});

afterEach(() => {
  alice.close();
  keeper.stop();
});

/** Sends the file; how the message ended. */
async function send(id: string): Promise<string> {
  const { engine } = alice;
  const uploads = new Uploads({ engine, transport, hash: hashFile, carryOut: async (effects) => alice.keep(effects) });
  uploads.start();
  while (engine.vault.rows.findUpload(id) !== undefined && engine.vault.rows.findMessage(id)?.delivery !== "failed")
    await new Promise((resolve) => setTimeout(resolve, 5));
  uploads.stop();
  return engine.vault.rows.findMessage(id)?.delivery ?? "gone";
}

async function write(): Promise<string> {
  const of = { contentType: "image/jpeg", size: 9, key: new Uint8Array(32), contentHash: await hashFile(file) };
  const message = content.photo(content.blob("", of), { width: 1, height: 1, caption: "wound" });
  return alice.engine.writeWithUpload(conversation, message, file, Date.now());
}

function place(id: string): string | undefined {
  const row = alice.vault.rows.findMessage(id);
  return row === undefined ? undefined : content.attachments(content.decode(row.content))[0]?.part.url;
}

it("sends part after part, and goes on where the server is", async () => {
  keeper.trouble = (part) => {
    if (part !== 2) return undefined;
    keeper.held = file.slice(0, PART + 7); // another node took some of it
    return undefined;
  };
  const id = await write();
  expect(await send(id)).not.toBe("failed");
  expect(keeper.offsets).toEqual([0, PART, PART + 7]);
  expect(sameBytes(keeper.held, file)).toBe(true);
  expect(place(id)).toBe(`curbside-blob:${keeper.began[0]}`);
});

it("sends everything once more when it was damaged on its way", async () => {
  keeper.trouble = (part) => (part === 3 ? { status: 422, code: "blob_corrupt" } : undefined);
  expect(await send(await write())).not.toBe("failed");
  expect(keeper.offsets).toEqual([0, PART, 2 * PART, 0, PART, 2 * PART]);
  expect(sameBytes(keeper.held, file)).toBe(true);
});

it("gives up when it is damaged every time", async () => {
  keeper.trouble = () => ({ status: 422, code: "blob_corrupt" });
  expect(await send(await write())).toBe("failed");
  expect(keeper.offsets).toEqual([0, 0]);
});

it("begins anew when the server has ended the upload meanwhile, and the message names the new place", async () => {
  const id = await write();
  await alice.engine.uploadMoved(id, makeId(), PART);
  keeper.trouble = (part) => (part === 1 ? { status: 404, code: "not_found" } : undefined);
  expect(await send(id)).not.toBe("failed");
  expect(keeper.offsets).toEqual([PART, 0, PART, 2 * PART]);
  expect(keeper.began).toHaveLength(1);
  expect(place(id)).toBe(`curbside-blob:${keeper.began[0]}`);
});

it("fails a message whose conversation is not the sender's any more", async () => {
  keeper.trouble = () => ({ status: 404, code: "not_found" });
  expect(await send(await write())).toBe("failed");
  expect(keeper.offsets).toEqual([0]);
});
