// The shared vectors, for tests: vectors/content and vectors/wire at the root of the repository.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const VECTORS = new URL("../../../../vectors/", import.meta.url);

export function readJson<T>(name: string): T {
  return JSON.parse(readFileSync(fileURLToPath(new URL(name, VECTORS)), "utf8")) as T;
}

export function readBytes(name: string): Uint8Array {
  return new Uint8Array(readFileSync(fileURLToPath(new URL(name, VECTORS))));
}

export function listFiles(folder: string): readonly string[] {
  return readdirSync(fileURLToPath(new URL(folder, VECTORS)));
}

export function fromHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Numbers from 0 to below `limit` that are the same on every run (mulberry32). */
export function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}
