// The rules as the MLS adapter asks for them: the shared table of commits, told in the adapter's own words.

import { describe, expect, test } from "vitest";
import type { VerifiedDevice } from "./chain";
import { concat } from "./crypto/bytes";
import { decodeBase64url } from "./ids";
import type { Actor, GroupView, Member, Transition } from "./mls/types";
import { readJson } from "./testing/vectors";
import { OrganizationRules } from "./trust";

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
interface WireCommit {
  reason: string;
  check: string | null;
  epoch: number;
  before: WireContext;
  after: WireContext;
  committer: WireActor;
  adds: { user_id: string; by: WireActor }[];
  removes: { user_id: string; by: WireActor }[];
  users: string[];
  context_by: WireActor | null;
  reinit: boolean;
}

const vectors = readJson<{ pinned_senders: string; commits: WireCommit[] }>("trust/group_rules.json");
const { authority } = readJson<{ authority: string }>("trust/chains.json");
const SENDER = new Uint8Array(70).fill(9);
const rules = await OrganizationRules.create({
  authority: decodeBase64url(authority),
  externalSender: SENDER,
  now: () => 1_780_000_000,
});
/** What the adapter refuses before it asks, and so cannot say. */
const UNSPEAKABLE = new Set(["reinit", "another external sender removes", "somebody adds himself"]);
const none = new Uint8Array();

const memberOf = (userId: string): Member<VerifiedDevice> => ({
  leaf: 0,
  identity: {
    userId,
    deviceId: "",
    name: "",
    role: "nurse",
    deviceLabel: "",
    userKey: none,
    signatureKey: none,
    userCertificate: none,
    enrolmentCertificate: none,
  },
});

const actorOf = ({ kind, user_id }: WireActor): Actor<VerifiedDevice> => {
  if (kind === "external_sender") return { kind: "delivery-service" };
  return { kind: kind === "newcomer" ? "joiner" : "member", member: memberOf(user_id) };
};

const viewOf = (context: WireContext, epoch: number, users: readonly string[]): GroupView<VerifiedDevice> => {
  const pinned = concat(Uint8Array.of(0x40, 70), SENDER);
  const senders = context.external_senders === vectors.pinned_senders ? pinned : decodeBase64url("AAAA");
  return {
    epoch,
    members: users.map(memberOf),
    policy: context.policy === null ? undefined : decodeBase64url(context.policy),
    externalSenders: context.external_senders === null ? undefined : senders,
    requiredExtensions: context.required_extensions,
  };
};

function transitionOf(commit: WireCommit): Transition<VerifiedDevice> {
  const change = ({ user_id, by }: WireCommit["adds"][number]) => ({ member: memberOf(user_id), by: actorOf(by) });
  const committer = actorOf(commit.committer);
  // The adapter counts a device that joins by itself among the added ones.
  const joined = committer.kind === "joiner" ? [{ member: committer.member, by: committer }] : [];
  return {
    before: viewOf(commit.before, commit.epoch, commit.users),
    after: viewOf(commit.after, commit.epoch + 1, commit.users),
    committer,
    diff: { added: [...commit.adds.map(change), ...joined], removed: commit.removes.map(change), updated: [] },
    contextBy: commit.context_by === null ? undefined : actorOf(commit.context_by),
  };
}

describe("rules over the adapter's transitions", () => {
  const told = vectors.commits.filter(({ reason }) => !UNSPEAKABLE.has(reason));

  test("all but three of the table can be told", () => {
    expect(told).toHaveLength(vectors.commits.length - UNSPEAKABLE.size);
  });

  test.each(told)("$reason → $check", (commit) => {
    const attempt = () => rules.verifyTransition(transitionOf(commit));
    if (commit.check === null) attempt();
    else expect(attempt).toThrow(expect.objectContaining({ code: "rule_broken", members: { check: commit.check } }));
  });

  test("a group that is joined", () => {
    const [good] = vectors.commits;
    if (good === undefined) throw new Error("no vectors");
    rules.verifyGroup(viewOf(good.before, 3, good.users));
    const other = viewOf({ ...good.before, external_senders: "AAAA" }, 3, good.users);
    expect(() => rules.verifyGroup(other)).toThrow(
      expect.objectContaining({ code: "rule_broken", members: { check: "group.sender.key" } }),
    );
  });
});
