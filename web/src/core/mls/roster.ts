import type { Credential, LeafNode, RatchetTree } from "ts-mls";
import { encodeLeafNode } from "ts-mls/leafNode.js";
import { CurbsideError } from "../errors";
import { sameBytes } from "./saved";
import type { Actor, GroupRules, LeafIdentity, Member, RosterDiff } from "./types";

interface Leaf {
  readonly index: number;
  readonly node: LeafNode;
}

/** What a leaf claims; only X.509 credentials are leaves of ours. */
export function claimOf(credential: Credential, signatureKey: Uint8Array): {
  certificates: readonly Uint8Array[];
  signatureKey: Uint8Array;
} {
  if (credential.credentialType !== "x509")
    throw new CurbsideError("untrusted_device", "a device without certificates was refused", {
      check: "trust.chain.length",
    });
  return { certificates: credential.certificates, signatureKey };
}

export function listLeaves(tree: RatchetTree): Leaf[] {
  return tree.flatMap((node, index) => (node?.nodeType === "leaf" ? [{ index: index / 2, node: node.leaf }] : []));
}

export function findLeaf(tree: RatchetTree, index: number): LeafNode | undefined {
  const node = tree[2 * index];
  return node?.nodeType === "leaf" ? node.leaf : undefined;
}

/** Whose leaf it is, when it was verified before. */
export async function identify<I extends LeafIdentity>(node: LeafNode, rules: GroupRules<I>): Promise<I> {
  return rules.identifyLeaf(claimOf(node.credential, node.signaturePublicKey));
}

export async function verifyLeaf<I extends LeafIdentity>(node: LeafNode, rules: GroupRules<I>): Promise<I> {
  return rules.verifyLeaf(claimOf(node.credential, node.signaturePublicKey));
}

/**
 * Every leaf with its identity; those that are not as they were in `before` are verified. Throws `untrusted_device`, and
 * `rule_broken` when two leaves are one device.
 */
export async function verifyRoster<I extends LeafIdentity>(
  tree: RatchetTree,
  rules: GroupRules<I>,
  before: RatchetTree = [],
): Promise<Member<I>[]> {
  const members: Member<I>[] = [];
  for (const { index, node } of listLeaves(tree)) {
    const known = isSameLeaf(findLeaf(before, index), node);
    members.push({ leaf: index, identity: await (known ? identify : verifyLeaf)(node, rules) });
  }
  if (new Set(members.map((member) => member.identity.deviceId)).size !== members.length)
    throw new CurbsideError("rule_broken", "a device is in the group twice", { check: "mls.leaf.unique" });
  return members;
}

export interface Causes<I extends LeafIdentity> {
  readonly committer: Actor<I>;
  /** Who proposed the removal of a leaf; the committer where it is not named. */
  readonly removers: ReadonlyMap<number, Actor<I>>;
  /** Leaves that Add proposals filled, when the slot was taken before. */
  readonly isAdded: (node: LeafNode) => boolean;
  /** Who proposed the Add of this leaf; the committer where it is not named. */
  readonly adderOf: (node: LeafNode) => Actor<I>;
}

export interface Roster<I extends LeafIdentity> {
  readonly tree: RatchetTree;
  readonly members: readonly Member<I>[];
}

/** What changed from one tree to the next, and who did it. A slot that changed hands counts as removed and added. */
export function diffRosters<I extends LeafIdentity>(
  before: Roster<I>,
  after: Roster<I>,
  causes: Causes<I>,
  rules: GroupRules<I>,
): RosterDiff<I> {
  const old = new Map(before.members.map((member) => [member.leaf, member]));
  const diff = { added: [] as { member: Member<I>; by: Actor<I> }[], removed: [] as { member: Member<I>; by: Actor<I> }[], updated: [] as Member<I>[] };
  const remover = (leaf: number): Actor<I> => causes.removers.get(leaf) ?? causes.committer;
  for (const member of after.members) {
    const node = findLeaf(after.tree, member.leaf);
    const previous = old.get(member.leaf);
    old.delete(member.leaf);
    if (node === undefined) continue;
    if (previous === undefined || causes.isAdded(node)) {
      if (previous !== undefined) diff.removed.push({ member: previous, by: remover(previous.leaf) });
      diff.added.push({ member, by: causes.adderOf(node) });
    } else if (!isSameLeaf(findLeaf(before.tree, member.leaf), node)) {
      rules.verifySuccessor(previous.identity, member.identity);
      diff.updated.push(member);
    }
  }
  for (const member of old.values()) diff.removed.push({ member, by: remover(member.leaf) });
  return diff;
}

/** All of it, key and credential included: a leaf counts as verified before only if nothing of it changed. */
function isSameLeaf(a: LeafNode | undefined, b: LeafNode): boolean {
  return a !== undefined && sameBytes(encodeLeafNode(a), encodeLeafNode(b));
}
