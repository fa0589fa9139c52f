import type { PaddingConfig } from "ts-mls";

/** What surrounds the application data in a PrivateMessageContent: its length prefix and the signature (RFC 9420 section 6.3.1). */
const FRAMING_BYTES = 4 + 2 + 64;
const SMALLEST = 256;
const DOUBLING_UPTO = 16 * 1024;
const STEP = 16 * 1024;

/** The size of a PrivateMessageContent on the wire for `length` bytes of application data: doubling to 16 KiB, then in steps of it. */
export function paddedSize(length: number): number {
  const needed = length + FRAMING_BYTES;
  if (needed > DOUBLING_UPTO) return Math.ceil(needed / STEP) * STEP;
  let size = SMALLEST;
  while (size < needed) size *= 2;
  return size;
}

/** Zero padding after the signature, as RFC 9420 has it, so that any MLS implementation opens it. */
export function paddingFor(length: number): PaddingConfig {
  return { kind: "padUntilLength", padUntilLength: paddedSize(length) };
}
