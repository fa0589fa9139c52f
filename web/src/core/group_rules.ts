// The conversation's rules over a commit (docs/trust.md, `group.*`), pure: facts in, `rule_broken` out. Twin of
// src/curbside/policy/group_rules.py.

import { isSame } from "./crypto/bytes";
import { CurbsideError, isCurbsideError } from "./errors";
import { GROUP_POLICY, type GroupPolicy, decodeGroupPolicy } from "./wire/group_policy";

/** Index of the delivery service among the external senders. */
export const DELIVERY_SERVICE = 0;
const DIRECT_USERS = 2;

/** Who asks for something: a member, an external sender by index, or somebody who is joining. */
export type RuleActor =
  | { readonly kind: "member" | "newcomer"; readonly userId: string }
  | { readonly kind: "external_sender"; readonly index: number };

/** A device of `userId` is added or removed at the wish of `by`. */
export interface RosterChange {
  readonly userId: string;
  readonly by: RuleActor;
}

/** What the rules look at in a group context: bodies of extensions, undefined when absent. */
export interface ContextFacts {
  readonly policy: Uint8Array | undefined;
  readonly externalSenders: Uint8Array | undefined;
  readonly requiredExtensions: readonly number[];
}

/** epoch: that the commit ends. users: of the members before. contextBy: who proposed new group context extensions. */
export interface CommitFacts {
  readonly epoch: number;
  readonly before: ContextFacts;
  readonly after: ContextFacts;
  readonly committer: RuleActor;
  readonly adds: readonly RosterChange[];
  readonly removes: readonly RosterChange[];
  readonly users: ReadonlySet<string>;
  readonly contextBy: RuleActor | undefined;
  readonly reinit: boolean;
}

/** Checks a group as it stands, when one joins it or when it is created; its policy. Throws `rule_broken`. */
export function checkGroup(
  context: ContextFacts,
  pinnedSenders: Uint8Array,
  users: ReadonlySet<string>,
  suiteAllowed: boolean,
): GroupPolicy {
  const policy = readPolicy(context);
  require(isPinned(context, pinnedSenders), "group.sender.key");
  require(suiteAllowed, "group.suite");
  if (policy.kind === "direct")
    require(new Set([...users, ...policy.administrators]).size <= DIRECT_USERS, "group.direct.members");
  return policy;
}

/** Checks a commit against the policy of the epoch that it ends. Throws `rule_broken`. */
export function checkCommit(commit: CommitFacts, pinnedSenders: Uint8Array): void {
  const policy = readPolicy(commit.before);
  const next = readPolicy(commit.after);
  require(next.version >= policy.version, "group.policy.present");
  checkContext(policy, next, commit);
  require(isPinned(commit.after, pinnedSenders), "group.sender.key");
  require(isPinned(commit.before, pinnedSenders), "group.sender.key");
  require(!commit.reinit, "group.reinit");
  const { committer } = commit;
  if (committer.kind === "newcomer") require(commit.users.has(committer.userId), "group.external.commit");
  require(commit.adds.every((add) => add.by.kind === "member"), "group.external.add");
  if (policy.kind === "direct") checkDirectAdds(policy, commit);
  else require(commit.adds.every((add) => mayChange(policy, add)), "group.add");
  require(commit.removes.every((remove) => mayRemove(policy, remove)), "group.remove");
}

/** Refuses by the rule's id. */
export function breakRule(check: string): never {
  throw new CurbsideError("rule_broken", `check ${check} failed`, { check });
}

function require(holds: boolean, check: string): void {
  if (!holds) breakRule(check);
}

function isPinned(context: ContextFacts, pinnedSenders: Uint8Array): boolean {
  return context.externalSenders !== undefined && isSame(context.externalSenders, pinnedSenders);
}

function readPolicy(context: ContextFacts): GroupPolicy {
  if (context.policy === undefined || !context.requiredExtensions.includes(GROUP_POLICY))
    breakRule("group.policy.present");
  try {
    return decodeGroupPolicy(context.policy);
  } catch (error) {
    if (isCurbsideError(error, "malformed")) breakRule("group.policy.present");
    throw error;
  }
}

function checkContext(policy: GroupPolicy, next: GroupPolicy, commit: CommitFacts): void {
  const by = commit.contextBy;
  if (by !== undefined) require(isAdministrator(policy, by), "group.policy.change");
  if (isSamePolicy(policy, next)) return;
  const risen = next.version === policy.version + 1 && next.kind === policy.kind;
  require(by !== undefined && risen, "group.policy.change");
}

function isSamePolicy(one: GroupPolicy, other: GroupPolicy): boolean {
  const administrators = one.administrators.join() === other.administrators.join();
  return one.version === other.version && one.kind === other.kind && administrators;
}

/** Nobody is above the other in a direct conversation. */
function isAdministrator(policy: GroupPolicy, actor: RuleActor): boolean {
  return policy.kind === "group" && actor.kind === "member" && policy.administrators.includes(actor.userId);
}

function mayChange(policy: GroupPolicy, change: RosterChange): boolean {
  const own = change.by.kind !== "external_sender" && change.by.userId === change.userId;
  return own || isAdministrator(policy, change.by);
}

function mayRemove(policy: GroupPolicy, remove: RosterChange): boolean {
  if (remove.by.kind === "external_sender") return remove.by.index === DELIVERY_SERVICE;
  return mayChange(policy, remove);
}

function checkDirectAdds(policy: GroupPolicy, commit: CommitFacts): void {
  const users = new Set([...commit.users, ...policy.administrators]);
  const added = commit.adds.map((add) => add.userId);
  if (commit.epoch > 0) require(added.every((user) => users.has(user)), "group.direct.members");
  require(new Set([...users, ...added]).size <= DIRECT_USERS, "group.direct.members");
}
