// MIMI message content: from and to bytes. Twin of content_codec.py: same checks, same refusals.

import { malformed, tooLarge } from "../errors";
import * as cbor from "./cbor";
import { checkExtensions } from "./content_clinical";
import {
  EXPIRES_SECONDS,
  EXTENSION_LEVELS,
  type Expiry,
  type Extensions,
  type ExternalPart,
  HASH_SHA256,
  MESSAGE_BYTES,
  MESSAGE_ID_BYTES,
  type Message,
  PART_LEVELS,
  PARTS,
  type Part,
  SALT_BYTES,
  type Semantics,
  TOPIC_BYTES,
  URI_BYTES,
} from "./content_types";

type Value = cbor.Value;

const DEPTH = 2 * PART_LEVELS + 1;
const UINT32 = 2 ** 32 - 1;

/** The one encoding of `message`. Throws `too_large`, or `malformed` for what `decode` would refuse. */
export function encode(message: Message): Uint8Array {
  const tree = messageTree(message);
  readMessage(tree);
  const data = cbor.encode(tree, DEPTH);
  if (data.length > MESSAGE_BYTES) throw tooLarge("a message is over its size limit", MESSAGE_BYTES);
  return data;
}

/** Read a message. Throws `too_large`, or `malformed` for anything else that `encode` would not have written. */
export function decode(data: Uint8Array): Message {
  if (data.length > MESSAGE_BYTES) throw tooLarge("a message is over its size limit", MESSAGE_BYTES);
  return readMessage(cbor.decode(data, DEPTH));
}

/** The id of an encoded message sent by `senderUri` in `roomUri` (draft, "Message ID"). */
export async function messageId(encoded: Uint8Array, senderUri: string, roomUri: string): Promise<Uint8Array> {
  const { salt } = decode(encoded);
  const pieces: Uint8Array[] = [];
  for (const uri of [senderUri, roomUri]) {
    const raw = new TextEncoder().encode(uri);
    if (raw.length > URI_BYTES) throw malformed("a URI is too long");
    pieces.push(Uint8Array.of(raw.length >> 8, raw.length & 0xff), raw);
  }
  const input = await new Blob([...pieces, encoded, salt] as BlobPart[]).arrayBuffer();
  const hashed = new Uint8Array(await crypto.subtle.digest("SHA-256", input));
  const id = new Uint8Array(MESSAGE_ID_BYTES);
  id[0] = HASH_SHA256;
  id.set(hashed.subarray(0, MESSAGE_ID_BYTES - 1), 1);
  return id;
}

/** The sender URI of a person, as it goes into message ids. */
export function userUri(userId: string): string {
  return `curbside-user:${userId}`;
}

/** The room URI of a conversation, as it goes into message ids. */
export function conversationUri(conversationId: string): string {
  return `curbside-conversation:${conversationId}`;
}

/** Throws `malformed` for an absolute expiry more than a year from `now` (Unix seconds), either way. */
export function checkExpiry(message: Message, now: number): void {
  const expires = message.expires;
  if (expires && !expires.relative && Math.abs(expires.time - now) > EXPIRES_SECONDS)
    throw malformed("a message expires at a nonsensical time");
}

// --- to CBOR ---------------------------------------------------------------------------------------------------------

function messageTree(message: Message): Value {
  const { expires } = message;
  return [
    message.salt,
    message.replaces,
    message.topicId,
    expires && [expires.relative, expires.time],
    message.inReplyTo,
    message.extensions,
    partTree(message.body, 1),
  ];
}

function partTree(part: Part, level: number): Value {
  if (level > PART_LEVELS) throw malformed("message: parts are nested too deeply");
  const head = [part.disposition, part.language];
  switch (part.type) {
    case "null":
      return [...head, 0];
    case "single":
      return [...head, 1, part.contentType, part.content];
    case "external": {
      const where = [part.contentType, part.url, part.expires, part.size];
      const sealed = [part.encAlg, part.key, part.nonce, part.aad, part.hashAlg, part.contentHash];
      return [...head, 2, ...where, ...sealed, part.description, part.filename];
    }
    case "multi":
      return [...head, 3, part.semantics, part.parts.map((nested) => partTree(nested, level + 1))];
  }
}

// --- from CBOR -------------------------------------------------------------------------------------------------------

function readMessage(value: Value): Message {
  const [salt, replaces, topicId, expires, inReplyTo, extensions, body] = array(value, 7);
  if (bytes(salt).length !== SALT_BYTES) throw malformed("message: the salt must have 16 octets");
  if (bytes(topicId).length > TOPIC_BYTES) throw malformed("message: the topic is too long");
  const [part, count] = readPart(body, 1);
  if (count > PARTS) throw malformed("message: too many parts");
  const message: Message = {
    salt: bytes(salt),
    body: part,
    replaces: readMessageId(replaces),
    topicId: bytes(topicId),
    expires: readExpiry(expires),
    inReplyTo: readMessageId(inReplyTo),
    extensions: readExtensions(extensions),
  };
  checkExtensions(message);
  return message;
}

function readMessageId(value: Value | undefined): Uint8Array | null {
  if (value === null) return null;
  const found = bytes(value);
  if (found.length !== MESSAGE_ID_BYTES || found[0] !== HASH_SHA256) throw malformed("message: not a message id");
  return found;
}

function readExpiry(value: Value | undefined): Expiry | null {
  if (value === null) return null;
  const [relative, time] = array(value, 2);
  if (typeof relative !== "boolean") throw malformed("message: expiry must say whether it is relative");
  const seconds = uint(time, UINT32);
  if (relative && seconds > EXPIRES_SECONDS) throw malformed("message: expires too far in the future");
  return { relative, time: seconds };
}

function readExtensions(value: Value | undefined): Extensions {
  if (!(value instanceof Map)) throw malformed("message: extensions must be a map");
  const found = value as ReadonlyMap<cbor.Key, Value>;
  if (levels(found) > EXTENSION_LEVELS) throw malformed("message: an extension is nested too deeply");
  for (const key of found.keys()) {
    if (key instanceof Uint8Array || key === 0)
      throw malformed("message: an extension's key must be text or an integer other than 0");
    if (typeof key === "string") {
      const length = new TextEncoder().encode(key).length;
      if (length < 1 || length > 255) throw malformed("message: an extension's key must have 1 to 255 octets");
    }
  }
  for (const key of [1, 2])
    if (found.has(key) && typeof found.get(key) !== "string")
      throw malformed("message: senderUri and roomUri must be text");
  return found as Extensions;
}

function levels(value: Value): number {
  if (cbor.isArray(value)) return 1 + deepest(value);
  if (value instanceof Map) return 1 + deepest([...(value as ReadonlyMap<cbor.Key, Value>).values()]);
  return value instanceof cbor.Tag ? 1 + levels(value.value) : 0;
}

function deepest(values: readonly Value[]): number {
  return values.reduce<number>((most, value) => Math.max(most, levels(value)), 0);
}

/** The part and how many parts it is made of, itself included. */
function readPart(value: Value | undefined, level: number): readonly [Part, number] {
  if (level > PART_LEVELS) throw malformed("message: parts are nested too deeply");
  const fields = array(value);
  if (fields.length < 3) throw malformed("message: a part is incomplete");
  const [disposition, language, cardinality] = [uint(fields[0], 255), text(fields[1]), uint(fields[2], 255)];
  const rest = fields.slice(3);
  if (cardinality === 0 && rest.length === 0) return [{ type: "null", disposition, language }, 1];
  if (cardinality === 1 && rest.length === 2) {
    const [contentType, content] = [text(rest[0]), bytes(rest[1])];
    return [{ type: "single", contentType, content, disposition, language }, 1];
  }
  if (cardinality === 2 && rest.length === 12) return [readExternal(rest, disposition, language), 1];
  if (cardinality !== 3 || rest.length !== 2) throw malformed("message: not a part");
  const nested = array(rest[1]).map((part) => readPart(part, level + 1));
  if (nested.length < 2) throw malformed("message: a MultiPart has two parts or more");
  const semantics = uint(rest[0], 2) as Semantics;
  const parts = nested.map(([part]) => part);
  const count = nested.reduce((sum, [, size]) => sum + size, 1);
  return [{ type: "multi", semantics, parts, disposition, language }, count];
}

function readExternal(fields: readonly Value[], disposition: number, language: string): ExternalPart {
  const part: ExternalPart = {
    type: "external",
    contentType: text(fields[0]),
    url: text(fields[1]),
    expires: uint(fields[2], UINT32),
    size: uint(fields[3], Number.MAX_SAFE_INTEGER),
    encAlg: uint(fields[4], 0xffff),
    key: bytes(fields[5]),
    nonce: bytes(fields[6]),
    aad: bytes(fields[7]),
    hashAlg: uint(fields[8], 0xff),
    contentHash: bytes(fields[9]),
    description: text(fields[10]),
    filename: text(fields[11]),
    disposition,
    language,
  };
  if (part.url === "") throw malformed("message: an external part without a url");
  if (part.encAlg === 0 && part.key.length + part.nonce.length + part.aad.length > 0)
    throw malformed("message: an external part with a key but no cipher");
  return part;
}

function array(value: Value | undefined, length = -1): readonly Value[] {
  if (value === undefined || !cbor.isArray(value) || (length >= 0 && value.length !== length))
    throw malformed("message: an array of another length was expected");
  return value;
}

function bytes(value: Value | undefined): Uint8Array {
  if (!(value instanceof Uint8Array)) throw malformed("message: bytes were expected");
  return value;
}

function text(value: Value | undefined): string {
  if (typeof value !== "string") throw malformed("message: text was expected");
  return value;
}

function uint(value: Value | undefined, most: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > most)
    throw malformed("message: a number is out of its range");
  return value;
}
