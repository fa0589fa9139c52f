// Frames against the vectors shared with Python: the same arrays, the same refusals.

import { decode, encode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import { isCurbsideError } from "../errors";
import { decodeFrame, encodeFrame, type Frame } from "./frames.generated";
import { fromHex, readJson, toHex } from "../testing/vectors";

interface Vectors {
  readonly valid: readonly { name: string; hex: string; frame: unknown; fields: Record<string, unknown> }[];
  readonly invalid: readonly { name: string; hex: string }[];
  readonly longer: { readonly hex: string; readonly same_as: string };
}
const vectors = readJson<Vectors>("wire/frames.json");

/** A value as the vectors tell it: bytes as {hex}, maps as {map}. */
function told(value: unknown): unknown {
  if (value instanceof Uint8Array) return { hex: toHex(value) };
  if (Array.isArray(value)) return value.map(told);
  if (typeof value !== "object" || value === null) return value;
  return { map: Object.fromEntries(Object.entries(value).map(([name, item]) => [name, told(item)])) };
}

const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

describe("frames", () => {
  it("have vectors", () => {
    expect(vectors.valid.length).toBeGreaterThan(10);
    expect(vectors.invalid.length).toBeGreaterThan(10);
  });

  it.each(vectors.valid)("$name keeps its bytes", ({ hex, frame, fields }) => {
    const read: Frame = decodeFrame(decode(fromHex(hex)));
    expect(told(encodeFrame(read))).toEqual(frame);
    expect(toHex(encode(encodeFrame(read)))).toBe(hex);
    expect(Object.keys(read).sort()).toEqual(["type", ...Object.keys(fields).map(camel)].sort());
  });

  it.each(vectors.invalid)("$name is refused", ({ hex }) => {
    let error: unknown;
    try {
      decodeFrame(decode(fromHex(hex)));
    } catch (caught) {
      error = caught;
    }
    expect(isCurbsideError(error, "malformed")).toBe(true);
  });

  it("pass over what a later version adds at the end", () => {
    const read = decodeFrame(decode(fromHex(vectors.longer.hex)));
    expect(toHex(encode(encodeFrame(read)))).toBe(vectors.longer.same_as);
  });
});
