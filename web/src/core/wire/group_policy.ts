// The conversation policy: GroupContext extension 0xFA01 (docs/trust.md), deterministic CBOR.
// `{1: version, 2: kind, 3: administrators}`. Twin of src/curbside/wire/group_policy.py.

import { malformed } from "../errors";
import { decodeId } from "../ids";
import { type Value, decode, encode, isArray } from "./cbor";

/** The extension's type, from the range for private use. */
export const GROUP_POLICY = 0xfa01;
const BYTES = 8192;
const ADMINISTRATORS = 256;

/**
 * version: 1 at first, one more with each change. administrators: user ids, sorted, each once. Of a direct conversation
 * they are the two users it is for (or nobody: then its first commit decides), and nobody is above the other. A group
 * has one administrator at least.
 */
export interface GroupPolicy {
  readonly version: number;
  readonly kind: "direct" | "group";
  readonly administrators: readonly string[];
}

/** The policy of a new direct conversation of two users. */
export function makeDirectPolicy(one: string, other: string): GroupPolicy {
  return { version: 1, kind: "direct", administrators: [...new Set([one, other])].sort() };
}

/** The policy of a new group. */
export function makeGroupPolicy(...administrators: readonly string[]): GroupPolicy {
  return { version: 1, kind: "group", administrators: [...new Set(administrators)].sort() };
}

/** The extension's body. Throws `malformed` when `decodeGroupPolicy` would refuse it. */
export function encodeGroupPolicy(policy: GroupPolicy): Uint8Array {
  const tree = new Map<number, Value>([
    [1, policy.version],
    [2, policy.kind],
    [3, policy.administrators],
  ]);
  read(tree);
  return encode(tree, 2);
}

/** Reads the extension's body. Throws `malformed` for anything that `encodeGroupPolicy` would not have written. */
export function decodeGroupPolicy(body: Uint8Array): GroupPolicy {
  if (body.length > BYTES) throw malformed("group policy: too long");
  return read(decode(body, 2));
}

function read(tree: Value): GroupPolicy {
  if (!(tree instanceof Map) || tree.size !== 3) throw malformed("group policy: another form was expected");
  const fields = tree as ReadonlyMap<unknown, Value>;
  const [version, kind, listed] = [fields.get(1), fields.get(2), fields.get(3)];
  if ((kind !== "direct" && kind !== "group") || listed === undefined || !isArray(listed))
    throw malformed("group policy: another form was expected");
  if (typeof version !== "number" || !Number.isSafeInteger(version) || version < 1)
    throw malformed("group policy: not a version");
  const administrators = listed.map(readUser);
  if (!administrators.every((user, index) => index === 0 || (administrators[index - 1] ?? "") < user))
    throw malformed("group policy: administrators are sorted and named once");
  const count = administrators.length;
  if (kind === "direct" ? count > 2 : count < 1 || count > ADMINISTRATORS)
    throw malformed("group policy: too many or too few administrators");
  return { version, kind, administrators };
}

function readUser(value: Value): string {
  if (typeof value !== "string") throw malformed("group policy: an administrator is a user id");
  decodeId(value);
  return value;
}
