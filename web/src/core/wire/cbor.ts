// Deterministic CBOR (RFC 8949 section 4.2.1), and nothing else. Twin of src/curbside/wire/cbor.py.
//
// `decode` accepts exactly the bytes that `encode` would write: shortest lengths and numbers, definite lengths, map keys
// sorted and unique, valid UTF-8, one NaN. Integers come back as number where a double holds them and as bigint beyond;
// floats as Float, because 1.0 and 1 are one thing to JavaScript and two to CBOR.

import { malformed } from "../errors";

/** Levels of arrays, maps and tags a document may have, unless the caller says less. */
export const MAX_DEPTH = 16;

/** A tagged value; the tag's meaning is the reader's business. */
export class Tag {
  readonly number: number | bigint;
  readonly value: Value;
  constructor(number: number | bigint, value: Value) {
    this.number = number;
    this.value = value;
  }
}

/** A simple value other than false, true and null; 23 is "undefined". */
export class Simple {
  readonly number: number;
  constructor(number: number) {
    this.number = number;
  }
}

/** A floating-point number. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

export type Key = number | string | Uint8Array;
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Value[]
  | ReadonlyMap<Key, Value>
  | Tag
  | Simple
  | Float;

/** The one deterministic encoding of `value`. Throws `malformed` for what the data model has no place for. */
export function encode(value: Value, maxDepth = MAX_DEPTH): Uint8Array {
  const out: Uint8Array[] = [];
  write(value, out, maxDepth);
  return concat(out);
}

/** Read one document that fills `data` to its last byte. Throws `malformed` for anything `encode` would not write. */
export function decode(data: Uint8Array, maxDepth = MAX_DEPTH): Value {
  const reader = new Reader(data);
  const value = reader.item(maxDepth);
  if (reader.position !== data.length) throw malformed("CBOR: bytes after the document");
  return value;
}

export function isArray(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

// --- writing ---------------------------------------------------------------------------------------------------------

const TWO_64 = 1n << 64n;

function head(major: number, argument: number | bigint): Uint8Array {
  const first = major << 5;
  if (argument < 24) return Uint8Array.of(first | Number(argument));
  if (argument <= 0xff) return Uint8Array.of(first | 24, Number(argument));
  const width = argument <= 0xffff ? 2 : argument <= 0xffffffff ? 4 : 8;
  if (BigInt(argument) >= TWO_64) throw malformed("CBOR: integer beyond 64 bits");
  const bytes = new Uint8Array(1 + width);
  const view = new DataView(bytes.buffer);
  bytes[0] = first | (width === 2 ? 25 : width === 4 ? 26 : 27);
  if (width === 2) view.setUint16(1, Number(argument));
  else if (width === 4) view.setUint32(1, Number(argument));
  else view.setBigUint64(1, BigInt(argument));
  return bytes;
}

function write(value: Value, out: Uint8Array[], depth: number): void {
  if (value === null) out.push(Uint8Array.of(0xf6));
  else if (typeof value === "boolean") out.push(Uint8Array.of(value ? 0xf5 : 0xf4));
  else if (typeof value === "number" || typeof value === "bigint") out.push(integer(value));
  else if (typeof value === "string") {
    if (!value.isWellFormed()) throw malformed("CBOR: text that has no UTF-8 form");
    const raw = new TextEncoder().encode(value);
    out.push(head(3, raw.length), raw);
  } else if (value instanceof Uint8Array) out.push(head(2, value.length), value);
  else if (value instanceof Float) out.push(float(value.value));
  else if (value instanceof Simple) out.push(simple(value.number));
  else writeContainer(value, out, depth - 1);
}

function integer(value: number | bigint): Uint8Array {
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw malformed("CBOR: not an integer");
  if (value >= 0) return head(0, value);
  return typeof value === "bigint" ? head(1, -1n - value) : head(1, -1 - value);
}

function simple(number: number): Uint8Array {
  const exists = Number.isInteger(number) && number >= 0 && (number < 20 || number === 23 || number >= 32);
  if (!exists || number > 255) throw malformed("CBOR: no such simple value");
  return head(7, number);
}

function writeContainer(
  value: readonly Value[] | ReadonlyMap<Key, Value> | Tag,
  out: Uint8Array[],
  depth: number,
): void {
  if (depth < 0) throw malformed("CBOR: nested too deeply");
  if (isArray(value)) {
    out.push(head(4, value.length));
    for (const item of value) write(item, out, depth);
  } else if (value instanceof Map) {
    const items = [...(value as ReadonlyMap<Key, Value>)].map(([key, item]) => [writeKey(key), item] as const);
    items.sort(([a], [b]) => compare(a, b));
    out.push(head(5, items.length));
    let previous: Uint8Array | undefined;
    for (const [key, item] of items) {
      if (previous && compare(previous, key) === 0) throw malformed("CBOR: map keys out of order or twice");
      previous = key;
      out.push(key);
      write(item, out, depth);
    }
  } else if (value instanceof Tag) {
    checkBignum(value.number, value.value);
    out.push(head(6, value.number));
    write(value.value, out, depth);
  } else throw malformed("CBOR: a type without an encoding");
}

function writeKey(key: Key): Uint8Array {
  const isKey = typeof key === "string" || key instanceof Uint8Array || Number.isSafeInteger(key);
  if (!isKey) throw malformed("CBOR: a map key must be an integer, text or bytes");
  const out: Uint8Array[] = [];
  write(key, out, 0);
  return concat(out);
}

function float(value: number): Uint8Array {
  if (Number.isNaN(value)) return Uint8Array.of(0xf9, 0x7e, 0x00);
  const half = halfBits(value);
  if (half !== undefined) return Uint8Array.of(0xf9, half >> 8, half & 0xff);
  const isSingle = Math.fround(value) === value;
  const bytes = new Uint8Array(isSingle ? 5 : 9);
  bytes[0] = isSingle ? 0xfa : 0xfb;
  const view = new DataView(bytes.buffer);
  if (isSingle) view.setFloat32(1, value);
  else view.setFloat64(1, value);
  return bytes;
}

/** The half-precision bits of `value`, if it has an exact half-precision form. */
function halfBits(value: number): number | undefined {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  if (view.getFloat32(0) !== value) return undefined;
  const bits = view.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 127;
  const fraction = bits & 0x7fffff;
  if (value === 0) return sign;
  if (exponent === 128) return sign | 0x7c00;
  if (exponent >= -14 && exponent <= 15)
    return (fraction & 0x1fff) === 0 ? sign | ((exponent + 15) << 10) | (fraction >> 13) : undefined;
  if (exponent < -24 || exponent > 15) return undefined;
  const shift = -1 - exponent; // subnormal: the implied one moves into the fraction
  const whole = fraction | 0x800000;
  return (whole & ((1 << shift) - 1)) === 0 ? sign | (whole >> shift) : undefined;
}

/** A big integer must not fit a plain one and has no leading zero (RFC 8949 section 4.2.1). */
function checkBignum(number: number | bigint, value: Value): void {
  if (number !== 2 && number !== 3) return;
  if (!(value instanceof Uint8Array && value.length > 8 && value[0] !== 0))
    throw malformed("CBOR: a big integer that is not in its shortest form");
}

// --- reading ---------------------------------------------------------------------------------------------------------

class Reader {
  readonly #data: Uint8Array;
  readonly #view: DataView;
  position = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }

  take(length: number | bigint): Uint8Array {
    const start = this.#skip(length);
    return this.#data.slice(start, this.position);
  }

  #skip(length: number | bigint): number {
    const start = this.position;
    if (length > this.#data.length - start) throw malformed("CBOR: cut short");
    this.position = start + Number(length);
    return start;
  }

  item(depth: number): Value {
    const initial = this.#view.getUint8(this.#skip(1));
    const major = initial >> 5;
    const info = initial & 31;
    if (major === 7) return this.#simpleOrFloat(info);
    const argument = this.#argument(info);
    switch (major) {
      case 0:
        return argument;
      case 1:
        return negative(argument);
      case 2:
        return this.take(argument);
      case 3:
        return this.#text(argument);
      default:
        return this.#container(major, argument, depth - 1);
    }
  }

  #argument(info: number): number | bigint {
    if (info < 24) return info;
    if (info > 27) throw malformed("CBOR: indefinite length or a reserved form");
    const start = this.#skip(1 << (info - 24));
    let argument: number | bigint;
    let least: number;
    if (info === 24) [argument, least] = [this.#view.getUint8(start), 24];
    else if (info === 25) [argument, least] = [this.#view.getUint16(start), 0x100];
    else if (info === 26) [argument, least] = [this.#view.getUint32(start), 0x10000];
    else [argument, least] = [this.#view.getBigUint64(start), 0x1_0000_0000];
    if (argument < least) throw malformed("CBOR: a number or length not in its shortest form");
    return argument <= Number.MAX_SAFE_INTEGER ? Number(argument) : argument;
  }

  #text(length: number | bigint): string {
    const raw = this.take(length);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
    } catch {
      throw malformed("CBOR: text that is not UTF-8");
    }
  }

  #container(major: number, argument: number | bigint, depth: number): Value {
    if (depth < 0) throw malformed("CBOR: nested too deeply");
    if (major === 6) {
      const value = this.item(depth);
      checkBignum(argument, value);
      return new Tag(argument, value);
    }
    // Every item takes an octet at least.
    if (argument > this.#data.length - this.position) throw malformed("CBOR: cut short");
    if (major === 5) return this.#map(Number(argument), depth);
    const items: Value[] = [];
    for (let left = Number(argument); left > 0; left--) items.push(this.item(depth));
    return items;
  }

  #map(length: number, depth: number): ReadonlyMap<Key, Value> {
    const found = new Map<Key, Value>();
    let previous = new Uint8Array();
    for (let left = length; left > 0; left--) {
      const start = this.position;
      const key = this.item(0);
      const isKey = typeof key === "number" || typeof key === "string" || key instanceof Uint8Array;
      if (!isKey) throw malformed("CBOR: a map key must be an integer up to 2^53 - 1, text or bytes");
      const encoded = this.#data.slice(start, this.position);
      if (compare(previous, encoded) >= 0) throw malformed("CBOR: map keys out of order or twice");
      previous = encoded;
      found.set(key, this.item(depth));
    }
    return found;
  }

  #simpleOrFloat(info: number): Value {
    if (info === 20 || info === 21) return info === 21;
    if (info === 22) return null;
    if (info < 24) return new Simple(info);
    if (info > 27) throw malformed("CBOR: indefinite length or a reserved form");
    const start = this.#skip(1 << (info - 24));
    if (info === 24) {
      const number = this.#view.getUint8(start);
      if (number < 32) throw malformed("CBOR: a simple value not in its shortest form");
      return new Simple(number);
    }
    const value =
      info === 25
        ? halfValue(this.#view.getUint16(start))
        : info === 26
          ? this.#view.getFloat32(start)
          : this.#view.getFloat64(start);
    if (compare(float(value), this.#data.subarray(start - 1, this.position)) !== 0)
      throw malformed("CBOR: a float not in its shortest form");
    return new Float(value);
  }
}

function negative(argument: number | bigint): number | bigint {
  const value = -1n - BigInt(argument);
  return value >= Number.MIN_SAFE_INTEGER ? Number(value) : value;
}

function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (fraction + 1024) * 2 ** (exponent - 25);
}

// --- bytes -----------------------------------------------------------------------------------------------------------

/** Lexicographic order of octets; a prefix comes first. */
function compare(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let position = 0;
  for (const piece of pieces) {
    whole.set(piece, position);
    position += piece.length;
  }
  return whole;
}
