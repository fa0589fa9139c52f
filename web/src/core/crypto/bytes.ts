// Bytes: joining, comparing, and text that must be UTF-8.

import { malformed } from "../errors";

/** Bytes that no other thread shares, as WebCrypto wants them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** The same bytes, copied only when another buffer type holds them. */
export function own(data: Uint8Array): Bytes {
  return data.buffer instanceof ArrayBuffer ? (data as Bytes) : Uint8Array.from(data);
}

export function concat(...parts: readonly Uint8Array[]): Bytes {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Whether two values are equal, in constant time for values of equal length. */
export function isSame(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  let different = 0;
  for (let index = 0; index < left.length; index++) different |= (left[index] ?? 0) ^ (right[index] ?? 0);
  return different === 0;
}

export function compareBytes(left: Uint8Array, right: Uint8Array): number {
  const length = Math.min(left.length, right.length);
  for (let index = 0; index < length; index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

export function fromText(text: string): Bytes {
  return new TextEncoder().encode(text);
}

/** Text of UTF-8 bytes; a byte order mark is a character like others. Throws `malformed`. */
export function toText(data: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw malformed("not UTF-8");
  }
}

export function toHex(data: Uint8Array): string {
  return Array.from(data, (octet) => octet.toString(16).padStart(2, "0")).join("");
}

export function fromHex(digits: string): Bytes {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
