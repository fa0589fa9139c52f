import { malformed } from "../errors";

/** Byte strings one after the other, each after its 32-bit length: the form in which the vault keeps MLS states. */
export function joinFields(fields: readonly Uint8Array[]): Uint8Array {
  const size = fields.reduce((sum, field) => sum + 4 + field.length, 0);
  const joined = new Uint8Array(size);
  const view = new DataView(joined.buffer);
  let offset = 0;
  for (const field of fields) {
    view.setUint32(offset, field.length);
    joined.set(field, offset + 4);
    offset += 4 + field.length;
  }
  return joined;
}

/** The fields of `joinFields`, copied. Throws `malformed` unless there are exactly `count`. */
export function splitFields(joined: Uint8Array, count: number): Uint8Array[] {
  const view = new DataView(joined.buffer, joined.byteOffset, joined.byteLength);
  const fields: Uint8Array[] = [];
  let offset = 0;
  while (offset < joined.length) {
    if (offset + 4 > joined.length) throw malformed("a saved state is cut short");
    const end = offset + 4 + view.getUint32(offset);
    if (end > joined.length) throw malformed("a saved state is cut short");
    fields.push(joined.slice(offset + 4, end));
    offset = end;
  }
  if (fields.length !== count) throw malformed("a saved state has another number of fields");
  return fields;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
