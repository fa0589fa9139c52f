import { describe, expect, test } from "vitest";
import { type CommitFacts, type ContextFacts, type RuleActor, checkCommit, checkGroup } from "./group_rules";
import { decodeBase64url, encodeBase64url } from "./ids";
import { readJson } from "./testing/vectors";
import {
  type GroupPolicy,
  decodeGroupPolicy,
  encodeGroupPolicy,
  makeDirectPolicy,
  makeGroupPolicy,
} from "./wire/group_policy";

interface WireActor {
  kind: "member" | "external_sender" | "newcomer";
  user_id: string;
  index: number;
}
interface WireContext {
  policy: string | null;
  external_senders: string | null;
  required_extensions: number[];
}
interface WireChange {
  user_id: string;
  by: WireActor;
}
interface WireCommit {
  reason: string;
  check: string | null;
  epoch: number;
  before: WireContext;
  after: WireContext;
  committer: WireActor;
  adds: WireChange[];
  removes: WireChange[];
  users: string[];
  context_by: WireActor | null;
  reinit: boolean;
}
interface Vectors {
  pinned_senders: string;
  commits: WireCommit[];
  groups: { reason: string; check: string | null; context: WireContext; users: string[]; suite_allowed: boolean }[];
  policies: (GroupPolicy & { body: string })[];
  refused_policies: { reason: string; body: string }[];
}

const vectors = readJson<Vectors>("trust/group_rules.json");
const senders = decodeBase64url(vectors.pinned_senders);
const bytesOf = (text: string | null) => (text === null ? undefined : decodeBase64url(text));
const actorOf = ({ kind, user_id, index }: WireActor): RuleActor =>
  kind === "external_sender" ? { kind, index } : { kind, userId: user_id };
const contextOf = (context: WireContext): ContextFacts => ({
  policy: bytesOf(context.policy),
  externalSenders: bytesOf(context.external_senders),
  requiredExtensions: context.required_extensions,
});
const changesOf = (changes: WireChange[]) => changes.map(({ user_id, by }) => ({ userId: user_id, by: actorOf(by) }));
const factsOf = (commit: WireCommit): CommitFacts => ({
  epoch: commit.epoch,
  before: contextOf(commit.before),
  after: contextOf(commit.after),
  committer: actorOf(commit.committer),
  adds: changesOf(commit.adds),
  removes: changesOf(commit.removes),
  users: new Set(commit.users),
  contextBy: commit.context_by === null ? undefined : actorOf(commit.context_by),
  reinit: commit.reinit,
});
const broken = (check: string) => expect.objectContaining({ code: "rule_broken", members: { check } });

describe("group rules", () => {
  test.each(vectors.commits)("$reason → $check", (commit) => {
    const attempt = () => checkCommit(factsOf(commit), senders);
    if (commit.check === null) attempt();
    else expect(attempt).toThrow(broken(commit.check));
  });

  test.each(vectors.groups)("joining: $reason → $check", ({ reason, check, context, users, suite_allowed }) => {
    const attempt = () => checkGroup(contextOf(context), senders, new Set(users), suite_allowed);
    if (check === null) expect(attempt().kind).toBe(reason);
    else expect(attempt).toThrow(broken(check));
  });
});

describe("policies", () => {
  test.each(vectors.policies)("reads and writes $kind", ({ body, ...policy }) => {
    expect(decodeGroupPolicy(decodeBase64url(body))).toEqual(policy);
    expect(encodeBase64url(encodeGroupPolicy(policy))).toBe(body);
  });

  test.each(vectors.refused_policies)("refuses: $reason", ({ body }) => {
    expect(() => decodeGroupPolicy(decodeBase64url(body))).toThrow(expect.objectContaining({ code: "malformed" }));
  });

  test("new ones", () => {
    const [one = "", other = ""] = vectors.policies[0]?.administrators ?? [];
    expect(makeDirectPolicy(other, one)).toEqual({ version: 1, kind: "direct", administrators: [one, other] });
    expect(makeGroupPolicy(one, one)).toEqual({ version: 1, kind: "group", administrators: [one] });
    expect(() => encodeGroupPolicy({ version: 0, kind: "group", administrators: [one] })).toThrow();
    expect(() => encodeGroupPolicy({ version: 2 ** 53, kind: "group", administrators: [one] })).toThrow();
  });
});
