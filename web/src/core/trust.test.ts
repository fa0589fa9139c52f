import { describe, expect, test } from "vitest";
import { ChainVerifier, UNKNOWN_DEVICE, parseAuthority, verifySuccessor } from "./chain";
import { decodeBase64url, encodeBase64url } from "./ids";
import { readJson, seeded } from "./testing/vectors";
import { OrganizationRules, computeSafetyNumber, verifyInvite } from "./trust";
import type { Invite } from "./wire/bodies.generated";
import { encodeInviteLink, parseInviteLink } from "./wire/invite_link";

interface ChainCase {
  reason: string;
  certificates: string[];
  leaf_key: string;
  now: number;
  check: string | null;
}
interface Chains {
  authority: string;
  expected: Record<string, string>;
  chains: ChainCase[];
  people: { certificates: string[]; now: number; check: string | null }[];
  successors: { old: string[]; new: string[]; check: string | null }[];
}
interface Invites {
  links: { text: string; origin: string; invite_id: string; enrolment_seed: string; authority_key: string }[];
  refused_links: string[];
  answers: { reason: string; link: string; now: number; check: string | null; error: string; invite: Invite }[];
}

const chains = readJson<Chains>("trust/chains.json");
const invites = readJson<Invites>("trust/invites.json");
const numbers = readJson<{ cases: { users: { user_id: string; key: string }[]; number: string }[] }>(
  "trust/safety_numbers.json",
);
const authority = decodeBase64url(chains.authority);
const good = chains.chains[0] as ChainCase;
const raw = (certificates: readonly string[]) => certificates.map(decodeBase64url);
const verify = (verifier: ChainVerifier, { certificates, leaf_key, now }: ChainCase) =>
  verifier.verifyDevice(raw(certificates), decodeBase64url(leaf_key), now);
const successorRefusal = expect.objectContaining({
  code: "untrusted_device",
  members: { check: "trust.successor.user", device: "Ward phone 3" },
});
const refusal = (check: string) => ({ code: "untrusted_device", members: { check } });

describe("chains", () => {
  test.each(chains.chains)("$reason → $check", async (vector) => {
    const cold = await ChainVerifier.create(authority);
    const warm = await ChainVerifier.create(authority);
    await verify(warm, good);
    for (const verifier of [cold, warm, cold]) {
      const verified = verify(verifier, vector);
      if (vector.check === null) {
        const { expected } = chains;
        expect(await verified).toMatchObject({
          userId: expected["user_id"],
          deviceId: expected["device_id"],
          name: expected["name"],
          role: expected["role"],
          deviceLabel: expected["device_label"],
          userKey: decodeBase64url(expected["user_key"] ?? ""),
          signatureKey: decodeBase64url(expected["signature_key"] ?? ""),
          userCertificate: decodeBase64url(vector.certificates[1] ?? ""),
        });
      } else await expect(verified).rejects.toMatchObject(refusal(vector.check));
    }
  });

  test("a refusal names the device", async () => {
    const verifier = await ChainVerifier.create(authority);
    const wrongKey = chains.chains.find(({ check }) => check === "trust.device.key") as ChainCase;
    await expect(verify(verifier, wrongKey)).rejects.toMatchObject({ members: { device: "Ward phone 3" } });
    const garbage = verifier.verifyDevice([new Uint8Array(), new Uint8Array(), new Uint8Array()], new Uint8Array(), 0);
    await expect(garbage).rejects.toMatchObject({ members: { device: UNKNOWN_DEVICE } });
  });

  test.each(chains.people)("people → $check", async ({ certificates, now, check }) => {
    const verifier = await ChainVerifier.create(authority);
    await verify(verifier, good);
    const verified = verifier.verifyUser(raw(certificates), now);
    if (check === null) expect(await verified).toMatchObject({ userId: chains.expected["user_id"], role: "nurse" });
    else await expect(verified).rejects.toMatchObject(refusal(check));
  });

  test.each(chains.successors)("successor → $check", async (vector) => {
    const verifier = await ChainVerifier.create(authority);
    const [old, next] = [await verifier.identify(raw(vector.old)), await verifier.identify(raw(vector.new))];
    if (vector.check === null) verifySuccessor(old, next);
    else {
      expect(vector.check).toBe("trust.successor.user");
      expect(() => verifySuccessor(old, next)).toThrow(successorRefusal);
    }
  });

  test("only an authority is pinned", async () => {
    for (const certificate of [new Uint8Array(3), ...raw(good.certificates)])
      await expect(parseAuthority(certificate)).rejects.toMatchObject({ code: "untrusted_device" });
  });

  test("the memory is bounded and keeps nothing that was refused", async () => {
    const small = await ChainVerifier.create(authority, 1);
    for (let round = 0; round < 3; round++) {
      await verify(small, good);
      await small.verifyUser(raw(chains.people[0]?.certificates ?? []), good.now);
    }
    expect(small.remembered).toBe(1);
    const fresh = await ChainVerifier.create(authority);
    const timeless = chains.chains.filter(({ check }) => check !== null && !/validity|device\.key/.test(check));
    for (const vector of timeless) await expect(verify(fresh, vector)).rejects.toThrow();
    expect(fresh.remembered).toBe(0);
  });

  test("a changed byte is refused", async () => {
    const verifier = await ChainVerifier.create(authority);
    const next = seeded(11);
    for (let round = 0; round < 150; round++) {
      const certificates = raw(good.certificates);
      const changed = certificates[next(3)] ?? new Uint8Array(1);
      const at = next(changed.length);
      changed[at] = (changed[at] ?? 0) ^ (1 + next(255));
      const verified = verifier.verifyDevice(certificates, decodeBase64url(good.leaf_key), good.now);
      await expect(verified).rejects.toMatchObject({ code: "untrusted_device" });
    }
  });

  test("the rules look at the time on each use", async () => {
    let now = good.now;
    const rules = await OrganizationRules.create({ authority, externalSender: new Uint8Array(40), now: () => now });
    const claim = { certificates: raw(good.certificates), signatureKey: decodeBase64url(good.leaf_key) };
    expect(await rules.verifyLeaf(claim)).toMatchObject({ deviceLabel: "Ward phone 3" });
    now += 5 * 365 * 86_400;
    await expect(rules.verifyLeaf(claim)).rejects.toMatchObject(refusal("trust.device.validity"));
    expect(await rules.identifyLeaf(claim)).toMatchObject({ deviceLabel: "Ward phone 3" });
  });
});

describe("invites", () => {
  test.each(invites.links)("reads and writes $origin", (vector) => {
    const link = parseInviteLink(vector.text);
    expect([link.origin, link.inviteId]).toEqual([vector.origin, vector.invite_id]);
    expect(encodeBase64url(link.enrolmentSeed.reveal())).toBe(vector.enrolment_seed);
    expect(encodeBase64url(link.authorityKey)).toBe(vector.authority_key);
    expect(encodeInviteLink(link)).toBe(vector.text.trim());
  });

  test.each(invites.refused_links)("refuses link: %s", (text) => {
    expect(() => parseInviteLink(text)).toThrow(expect.objectContaining({ code: "malformed" }));
  });

  test("writes no link that it would not read", () => {
    const link = parseInviteLink(invites.links[0]?.text ?? "");
    for (const origin of ["http://chat.olaf.example", "https://a.example/", "https://A.example", ""])
      expect(() => encodeInviteLink({ ...link, origin })).toThrow(expect.objectContaining({ code: "internal" }));
    expect(() => encodeInviteLink({ ...link, authorityKey: new Uint8Array(3) })).toThrow();
  });

  test.each(invites.answers)("answer: $reason", async ({ link, invite, now, check, error }) => {
    const parsed = parseInviteLink(link);
    const verified = verifyInvite(parsed, invite, now);
    if (error !== "") await expect(verified).rejects.toMatchObject({ code: error });
    else if (check !== null)
      await expect(verified).rejects.toMatchObject({ code: "untrusted_device", members: { check, device: "invite" } });
    else {
      const expected = invites.answers[0]?.invite;
      expect(await verified).toMatchObject({
        organization: expected?.organization,
        userId: expected?.user_id,
        role: expected?.role,
        expiresAt: expected?.expires_at,
      });
    }
  });
});

describe("safety numbers", () => {
  test.each(numbers.cases)("$number", async ({ users, number }) => {
    const people = users.map(({ user_id, key }) => ({ userId: user_id, userKey: decodeBase64url(key) }));
    expect(await computeSafetyNumber(people)).toBe(number);
  });

  test("a key has 32 bytes", async () => {
    const wrong = computeSafetyNumber([{ userId: chains.expected["user_id"] ?? "", userKey: new Uint8Array(31) }]);
    await expect(wrong).rejects.toMatchObject({ code: "internal" });
  });
});
