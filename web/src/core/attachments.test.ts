import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { downloadAttachment, isSafeLink, openAttachment } from "./attachments";
import { SecretBytes } from "./crypto/secret";
import { hashFile, openBytes, sealBytes } from "./crypto/stream_aead";
import { sameBytes } from "./mls/saved";
import { EnginePerson, Organization } from "./testing/people";
import { Transport } from "./transport";
import * as content from "./wire/content";
import { BLOB_CHUNK_BYTES } from "./wire/limits.generated";

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

const PART = BLOB_CHUNK_BYTES;
const BLOB = "AAAAAAAAAAAAAAAAAAAAAA";

/** A server, and a storage on another port, that answer as they are told to. */
class Lying {
  readonly data: Uint8Array;
  readonly asked: string[] = [];
  readonly foreignHeaders = new Set<string>();
  stored: Uint8Array;
  refuseLinkAfter = Number.POSITIVE_INFINITY;
  link = "";
  readonly #servers: Server[] = [];
  url = "";

  constructor(data: Uint8Array) {
    this.data = data;
    this.stored = data;
  }

  async start(): Promise<this> {
    this.url = await this.#listen((request, response) => this.#serve(request, response));
    this.link = `${await this.#listen((request, response) => this.#store(request, response))}/bucket/object?signature=1`;
    return this;
  }

  stop(): void {
    for (const server of this.#servers) server.close();
  }

  download(): Promise<Uint8Array> {
    const transport = new Transport(this.url, async () => "proof", { now: Date.now });
    transport.session = { token: "t" } as NonNullable<typeof transport.session>;
    return downloadAttachment(BLOB, transport, async (found) => sameBytes(found, this.data));
  }

  async #listen(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    const server = createServer(answer);
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    if (request.url === `/v1/blobs/${BLOB}/location`) {
      this.asked.push("location");
      response.end(JSON.stringify({ url: this.link, size: this.data.length, expires_at: 1 }));
    } else {
      this.asked.push("server");
      part(request, response, this.data, { "curbside-location": "1" });
    }
  }

  #store(request: IncomingMessage, response: ServerResponse): void {
    this.asked.push("storage");
    for (const name of Object.keys(request.headers)) this.foreignHeaders.add(name);
    if (this.asked.filter((who) => who === "storage").length > this.refuseLinkAfter) response.writeHead(403).end("ended");
    else part(request, response, this.stored, {});
  }
}

function part(request: IncomingMessage, response: ServerResponse, data: Uint8Array, more: object): void {
  const [first, last] = (request.headers.range ?? "").replace("bytes=", "").split("-").map(Number) as [number, number];
  const body = data.subarray(first, last + 1);
  const range = `bytes ${first}-${first + body.length - 1}/${data.length}`;
  response.writeHead(206, { "content-range": range, "content-length": body.length, ...more }).end(body);
}

function numbered(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, at) => (at * 31 + (at >> 8)) & 255);
}

it("reads what is left by a link, and tells the storage nothing of us", async () => {
  const server = await new Lying(numbered(2 * PART + 5)).start();
  expect(sameBytes(await server.download(), server.data)).toBe(true);
  expect(server.asked).toEqual(["server", "location", "storage", "storage"]);
  for (const name of ["authorization", "dpop", "cookie", "referer"]) expect(server.foreignHeaders).not.toContain(name);
  server.stop();
});

it("asks for a link anew when it ended, and then goes on with the server", async () => {
  const server = await new Lying(numbered(6 * PART)).start();
  server.refuseLinkAfter = 1;
  expect(sameBytes(await server.download(), server.data)).toBe(true);
  expect(server.asked.filter((who) => who === "location")).toHaveLength(3);
  expect(server.asked.filter((who) => who === "server")).toHaveLength(5);
  server.stop();
});

it.each(["bits", "shorter", "longer"])("does not take the storage's word: %s", async (change) => {
  const server = await new Lying(numbered(3 * PART)).start();
  if (change === "bits") server.stored = server.data.map((byte) => byte ^ 1);
  else server.stored = numbered(3 * PART + (change === "shorter" ? -1 : 1));
  expect(sameBytes(await server.download(), server.data)).toBe(true);
  server.stop();
});

it.each([
  ["https://s3.example.org/x?y", true],
  ["http://127.0.0.1:9000/x", true],
  ["http://localhost/x", true],
  ["http://[::1]:9/x", true],
  ["http://s3.example.org/x", false],
  ["http://localhost.example.org/x", false],
  ["http://127.0.0.1@s3.example.org/x", false],
  ["https://user@s3.example.org/x", false],
  ["file:///etc/passwd", false],
  ["//s3.example.org/x", false],
  ["", false],
])("follows links with TLS, or to this machine: %s", (url, safe) => {
  expect(isSafeLink(url)).toBe(safe);
});

it("fetches anew what is kept under the blob's name and is another file", async () => {
  const key = new Uint8Array(32).fill(7);
  const sealed = await sealBytes(new SecretBytes(key), numbered(1000));
  const server = await new Lying(sealed).start();
  const transport = new Transport(server.url, async () => "proof", { now: Date.now });
  transport.session = { token: "t" } as NonNullable<typeof transport.session>;
  const of = { contentType: "image/jpeg", size: 1000, key, contentHash: await hashFile(sealed) };
  const open = () => openAttachment(content.blob(BLOB, of), alice.vault, transport, crypto);
  await alice.vault.transaction((rows) => rows.saveAttachment(BLOB, numbered(sealed.length), 1));
  for (let times = 0; times < 2; times++) expect(sameBytes(await open(), numbered(1000))).toBe(true);
  expect(server.asked).toEqual(["server"]);
  server.stop();
});
