// Identifiers: 16 random bytes written as 22 characters of base64url. Twin of src/curbside/ids.py.

import { malformed } from "./errors";

export const ID_BYTES = 16;

/** Base64url without padding (RFC 4648 section 5). */
export function encodeBase64url(data: Uint8Array): string {
  let binary = "";
  for (let start = 0; start < data.length; start += 0x8000)
    binary += String.fromCharCode(...data.subarray(start, start + 0x8000));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The bytes of unpadded base64url. Throws `malformed` for padding, other alphabets and non-canonical endings. */
export function decodeBase64url(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) throw malformed("not base64url");
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const data = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  if (encodeBase64url(data) !== text) throw malformed("not canonical base64url");
  return data;
}

/** The 22-character form of 16 bytes. Throws `malformed`. */
export function encodeId(raw: Uint8Array): string {
  if (raw.length !== ID_BYTES) throw malformed(`an id has ${ID_BYTES} bytes`);
  return encodeBase64url(raw);
}

/** The 16 bytes of an id's 22-character form. Throws `malformed`. */
export function decodeId(text: string): Uint8Array<ArrayBuffer> {
  const raw = decodeBase64url(text);
  if (raw.length !== ID_BYTES) throw malformed("an id has 22 characters");
  return raw;
}

export function makeId(): string {
  return encodeBase64url(crypto.getRandomValues(new Uint8Array(ID_BYTES)));
}

/**
 * An id for a message: the hour (4 bytes, big-endian), so that a server's index of ids grows at its end, then 12 random
 * bytes. It says no more than that the message was written in that hour.
 */
export function makeMessageId(nowMs: number): string {
  const raw = crypto.getRandomValues(new Uint8Array(ID_BYTES));
  new DataView(raw.buffer).setUint32(0, Math.floor(nowMs / 3_600_000));
  return encodeBase64url(raw);
}
