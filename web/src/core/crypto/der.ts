// The part of DER (X.690) that our certificates need. Twin of src/curbside/crypto/der.py, which says why it is our own:
// Python and the browser must agree on every certificate, so both read with the same few lines, one spelling only.

import { CurbsideError, malformed } from "../errors";
import { type Bytes, concat, fromHex, fromText, isSame } from "./bytes";

export const BOOLEAN = 0x01;
export const INTEGER = 0x02;
export const BIT_STRING = 0x03;
export const OCTET_STRING = 0x04;
export const OBJECT_ID = 0x06;
export const UTF8_STRING = 0x0c;
export const PRINTABLE_STRING = 0x13;
export const UTC_TIME = 0x17;
export const GENERALIZED_TIME = 0x18;
export const SEQUENCE = 0x30;
export const SET = 0x31;
export const TRUE = fromHex("0101ff");

const MAX_LENGTH = 0xffff;

/** Reads one element after another. Every method throws `malformed` when the bytes are not what is asked for. */
export class Reader {
  readonly #data: Uint8Array;
  #position = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  /** Whether bytes are left. */
  get more(): boolean {
    return this.#position < this.#data.length;
  }

  /** Whether the next element has this tag. */
  has(tag: number): boolean {
    return this.#data[this.#position] === tag;
  }

  /** The content of the next element, which must have this tag. */
  take(tag: number): Uint8Array {
    if (!this.has(tag)) throw malformed("DER: another element was expected");
    const [start, length] = this.#length(this.#position + 1);
    const end = start + length;
    if (end > this.#data.length) throw malformed("DER: cut short");
    this.#position = end;
    return this.#data.subarray(start, end);
  }

  /** The next element with its tag and length. */
  takeWhole(tag: number): Uint8Array {
    const start = this.#position;
    this.take(tag);
    return this.#data.subarray(start, this.#position);
  }

  /** Whether the next element, which must have this tag, is exactly these bytes. */
  takeIs(tag: number, whole: Uint8Array): boolean {
    return isSame(this.takeWhole(tag), whole);
  }

  /** A reader over the content of the next element. */
  inner(tag: number): Reader {
    return new Reader(this.take(tag));
  }

  /** Checks that nothing is left. */
  finish(): void {
    if (this.more) throw malformed("DER: bytes follow the value");
  }

  /** Where the content starts, and its length; only the shortest form, up to 65,535. */
  #length(at: number): [number, number] {
    const [first, second, third] = [this.#data[at], this.#data[at + 1], this.#data[at + 2]];
    if (first !== undefined && first < 0x80) return [at + 1, first];
    if (first === 0x81 && second !== undefined && second >= 0x80) return [at + 2, second];
    if (first === 0x82 && second !== undefined && second > 0 && third !== undefined)
      return [at + 3, (second << 8) | third];
    throw malformed("DER: a length that is cut, too large or not in its shortest form");
  }
}

/** One element whose content is all parts, one after the other. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Bytes {
  const content = concat(...parts);
  const length = content.length;
  if (length < 0x80) return concat(Uint8Array.of(tag, length), content);
  if (length < 0x100) return concat(Uint8Array.of(tag, 0x81, length), content);
  if (length > MAX_LENGTH) throw new CurbsideError("internal", "a DER element is too long");
  return concat(Uint8Array.of(tag, 0x82, length >> 8, length & 0xff), content);
}

/** A Time (RFC 5280 section 4.1.2.5) of Unix seconds: UTCTime through 2049, GeneralizedTime after. */
export function writeTime(seconds: number): Bytes {
  const moment = new Date(seconds * 1000);
  const year = moment.getUTCFullYear();
  if (!(year >= 1950 && year <= 9999)) throw new CurbsideError("internal", "a time that certificates cannot say");
  const text = moment.toISOString().replaceAll(/[-:T]|\.000/g, "");
  return year < 2050 ? element(UTC_TIME, fromText(text.slice(2))) : element(GENERALIZED_TIME, fromText(text));
}

/** Unix seconds of a Time; only the form that `writeTime` writes. Throws `malformed`. */
export function readTime(reader: Reader): number {
  const short = reader.has(UTC_TIME);
  let text = String.fromCharCode(...reader.take(short ? UTC_TIME : GENERALIZED_TIME));
  if (short) text = (text < "5" ? "20" : "19") + text;
  else if (text.slice(0, 4) < "2050") throw malformed("DER: a time before 2050 is written as UTCTime");
  const parts = /^([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z$/.exec(text)?.slice(1);
  if (parts === undefined) throw malformed("DER: not a time");
  const [year, month, day, hour, minute, second] = parts;
  const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}.000Z`;
  const milliseconds = Date.parse(iso);
  // Date.parse reads 24:00:00 and, in some engines, the 30th of February; only what it would write again is a time.
  if (Number.isNaN(milliseconds) || new Date(milliseconds).toISOString() !== iso) throw malformed("DER: not a time");
  return milliseconds / 1000;
}
