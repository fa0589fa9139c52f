import {
  type ClientState,
  type Extension,
  type LeafNode,
  type Proposal,
  bytesToBase64,
  decodeRequiredCapabilities,
} from "ts-mls";
import { CurbsideError } from "../errors";
import { diffRosters, findLeaf, listLeaves, verifyRoster } from "./roster";
import { sameBytes } from "./saved";
import {
  type Actor,
  type GroupRules,
  type GroupView,
  type LeafIdentity,
  type Member,
  POLICY_EXTENSION,
  type RosterDiff,
} from "./types";

const EXTENSION_NAMES = { policy: POLICY_EXTENSION, senders: "external_senders", required: "required_capabilities" };

export function findExtension(
  extensions: readonly Extension[],
  name: keyof typeof EXTENSION_NAMES,
): Extension | undefined {
  return extensions.find((extension) => extension.extensionType === EXTENSION_NAMES[name]);
}

export function viewOf<I extends LeafIdentity>(state: ClientState, members: readonly Member<I>[]): GroupView<I> {
  const { extensions, epoch } = state.groupContext;
  return {
    epoch: Number(epoch),
    members,
    policy: findExtension(extensions, "policy")?.extensionData,
    externalSenders: findExtension(extensions, "senders")?.extensionData,
    requiredExtensions: requiredExtensions(findExtension(extensions, "required")?.extensionData),
  };
}

function requiredExtensions(data: Uint8Array | undefined): readonly number[] {
  const decoded = data && decodeRequiredCapabilities(data, 0);
  return decoded === undefined || decoded[1] !== data?.length ? [] : decoded[0].extensionTypes;
}

/** Which proposals are taken at all, before any rule of the group: no PSK, ReInit or custom ones, and from the delivery service only Remove. */
export function admitProposal<I extends LeafIdentity>(proposal: Proposal, by: Actor<I>): "add" | "remove" | "update" {
  const kind = proposal.proposalType;
  if (by.kind === "delivery-service" && kind !== "remove")
    throw new CurbsideError("rule_broken", "", { check: "group.external.add" });
  if (kind === "add" || kind === "remove" || kind === "update") return kind;
  throw new CurbsideError("rule_broken", "", { check: "mls.proposal.kind" });
}

export interface CommitCause<I extends LeafIdentity> {
  readonly committer: Actor<I> | "joiner";
  /** The proposals of the commit: by value, or the reference of one that waits. */
  readonly proposals: readonly (Proposal | Uint8Array)[];
}

export interface VerifiedTransition<I extends LeafIdentity> {
  readonly members: readonly Member<I>[];
  readonly diff: RosterDiff<I>;
  readonly committer: Actor<I>;
}

/**
 * Checks a commit's outcome, ours or another's: every leaf's chain, the successor rule, the kinds of proposals, and the
 * group rules. Throws; ts-mls has verified signatures, tree and tags before.
 */
export async function verifyTransition<I extends LeafIdentity>(
  before: ClientState,
  after: ClientState,
  cause: CommitCause<I>,
  membersBefore: readonly Member<I>[],
  rules: GroupRules<I>,
): Promise<VerifiedTransition<I>> {
  const members = await verifyRoster(after.ratchetTree, rules, before.ratchetTree);
  const committer = cause.committer === "joiner" ? findJoiner(before, after, members) : cause.committer;
  const named = nameProposals(before, cause, committer, membersBefore);
  const diff = diffRosters(
    { tree: before.ratchetTree, members: membersBefore },
    { tree: after.ratchetTree, members },
    { committer, ...named },
    rules,
  );
  const removedMe = after.groupActiveState.kind === "removedFromGroup";
  // A removed member cannot derive the next epoch; ts-mls then leaves the old GroupContext in place.
  if (!removedMe) verifyExtensions(before, after);
  const view = viewOf(after, members);
  const changesContext = cause.proposals.some(
    (entry) => !(entry instanceof Uint8Array) && entry.proposalType === "group_context_extensions",
  );
  rules.verifyTransition({
    before: viewOf(before, membersBefore),
    after: removedMe ? { ...view, epoch: view.epoch + 1 } : view,
    committer,
    diff,
    contextBy: changesContext ? committer : undefined,
  });
  return { members, diff, committer };
}

function findJoiner<I extends LeafIdentity>(
  before: ClientState,
  after: ClientState,
  members: readonly Member<I>[],
): Actor<I> {
  const fresh = listLeaves(after.ratchetTree).filter(({ index, node }) => {
    const old = findLeaf(before.ratchetTree, index);
    return old === undefined || !sameBytes(old.signature, node.signature);
  });
  const member = members.find((candidate) => candidate.leaf === fresh[0]?.index);
  if (fresh.length !== 1 || member === undefined)
    throw new CurbsideError("rule_broken", "", { check: "group.external.commit" });
  return { kind: "joiner", member };
}

function nameProposals<I extends LeafIdentity>(
  before: ClientState,
  cause: CommitCause<I>,
  committer: Actor<I>,
  members: readonly Member<I>[],
): { removers: Map<number, Actor<I>>; isAdded: (node: LeafNode) => boolean; adderOf: (node: LeafNode) => Actor<I> } {
  const removers = new Map<number, Actor<I>>();
  const adders = new Map<string, Actor<I>>();
  for (const entry of cause.proposals) {
    const { proposal, by } =
      entry instanceof Uint8Array ? findWaiting(before, entry, members) : { proposal: entry, by: committer };
    if (proposal.proposalType === "remove") removers.set(proposal.remove.removed, by);
    else if (proposal.proposalType === "add") adders.set(leafKey(proposal.add.keyPackage.leafNode), by);
    else if (!isAllowedInCommit(proposal, committer, entry instanceof Uint8Array))
      throw new CurbsideError("rule_broken", "", { check: "mls.proposal.kind" });
  }
  if (committer.kind === "joiner") return { removers, isAdded: isLeafOf(before, committer), adderOf: () => committer };
  return {
    removers,
    isAdded: (node) => adders.has(leafKey(node)),
    adderOf: (node) => adders.get(leafKey(node)) ?? committer,
  };
}

function isLeafOf<I extends LeafIdentity>(before: ClientState, joiner: Actor<I> & { kind: "joiner" }) {
  return (node: LeafNode): boolean => {
    const old = findLeaf(before.ratchetTree, joiner.member.leaf);
    return node.leafNodeSource === "commit" && (old === undefined || !sameBytes(old.signature, node.signature));
  };
}

function isAllowedInCommit<I extends LeafIdentity>(proposal: Proposal, committer: Actor<I>, waited: boolean): boolean {
  const kind = proposal.proposalType;
  if (kind === "update") return waited;
  if (kind === "group_context_extensions") return committer.kind === "member" && !waited;
  return kind === "external_init" && committer.kind === "joiner";
}

function leafKey(node: LeafNode): string {
  return bytesToBase64(node.signature);
}

function findWaiting<I extends LeafIdentity>(
  state: ClientState,
  reference: Uint8Array,
  members: readonly Member<I>[],
): { proposal: Proposal; by: Actor<I> } {
  const waiting = state.unappliedProposals[bytesToBase64(reference)];
  if (waiting === undefined) throw new CurbsideError("rule_broken", "", { check: "mls.proposal.reference" });
  if (waiting.senderLeafIndex === undefined) return { proposal: waiting.proposal, by: { kind: "delivery-service" } };
  const member = members.find((candidate) => candidate.leaf === waiting.senderLeafIndex);
  if (member === undefined) throw new CurbsideError("rule_broken", "", { check: "mls.sender.leaf" });
  return { proposal: waiting.proposal, by: { kind: "member", member } };
}

/** Only the policy may change; no extension may come, go or be there twice. */
function verifyExtensions(before: ClientState, after: ClientState): void {
  const old = before.groupContext.extensions;
  const now = after.groupContext.extensions;
  const kept =
    old.length === now.length &&
    new Set(now.map((extension) => extension.extensionType)).size === now.length &&
    now.every((extension) => {
      const was = old.find((candidate) => candidate.extensionType === extension.extensionType);
      return (
        was !== undefined &&
        (extension.extensionType === POLICY_EXTENSION || sameBytes(was.extensionData, extension.extensionData))
      );
    });
  if (!kept) throw new CurbsideError("rule_broken", "", { check: "group.sender.key" });
}
