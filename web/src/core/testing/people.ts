// People of an organisation with real keys, certificates and vaults, for tests of the engine: no server, no network.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeExternalSender } from "ts-mls/externalSender.js";
import { generateSigningSeed, publicKeyOf } from "../crypto/primitives";
import type { SecretBytes } from "../crypto/secret";
import {
  type Certificate,
  type Issuer,
  KEY_CERT_SIGN,
  buildCertificate,
  makeDeviceCertificate,
  makeUserCertificate,
} from "../crypto/x509";
import type { Effect } from "../effects";
import { Engine } from "../engine";
import { Groups } from "../groups";
import { decodeBase64url, decodeId, makeId } from "../ids";
import { Device } from "../mls/device";
import type { Change } from "../mls/types";
import { OrganizationRules } from "../trust";
import { diskFiles, loadFromDisk } from "../vault/testing/disk";
import { Vault } from "../vault/vault";
import { Views } from "../views";
import type { Entry } from "../wire/frames.generated";
import { type GroupPolicy, encodeGroupPolicy } from "../wire/group_policy";

const DAY = 86_400;
const VAULT_KEY = new Uint8Array(32).fill(7);
const NOBODY = { organization: "", role: "", commonName: "", userId: "", deviceId: "" };

export class Organization {
  readonly authority: Issuer;
  readonly externalSender: Uint8Array;

  private constructor(authority: Issuer, externalSender: Uint8Array) {
    this.authority = authority;
    this.externalSender = externalSender;
  }

  static async found(): Promise<Organization> {
    const key = generateSigningSeed();
    const subject = { ...NOBODY, organization: "Sankt Elsewhere", commonName: "Sankt Elsewhere" };
    const certificate = await issue("authority", subject, key, undefined);
    const credential = { credentialType: "basic" as const, identity: new TextEncoder().encode("delivery") };
    const signaturePublicKey = await publicKeyOf(generateSigningSeed());
    return new Organization({ certificate, key }, encodeExternalSender({ credential, signaturePublicKey }));
  }

  async enrol(role: string): Promise<Issuer> {
    const key = generateSigningSeed();
    const subject = { ...NOBODY, organization: "Sankt Elsewhere", role, userId: makeId() };
    return { certificate: await issue("enrolment", subject, key, this.authority), key };
  }
}

async function issue(
  kind: "authority" | "enrolment",
  subject: typeof NOBODY,
  key: SecretBytes,
  issuer: Issuer | undefined,
): Promise<Certificate> {
  const draft = {
    kind,
    subject,
    publicKey: await publicKeyOf(key),
    notBefore: now() - 300,
    notAfter: now() + DAY,
    ca: true,
    pathLength: kind === "authority" ? -1 : 1,
    keyUsage: KEY_CERT_SIGN,
  };
  return buildCertificate(draft, issuer?.key ?? key, issuer?.certificate);
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}

/** One device with its engine; what it wants to do waits in `effects`. */
export class EnginePerson {
  readonly userId: string;
  readonly deviceId: string;
  vault!: Vault;
  groups!: Groups;
  engine!: Engine;
  views!: Views;
  effects: Effect[] = [];
  #position = 0;
  readonly #folder = mkdtempSync(join(tmpdir(), "engine-"));
  readonly #name: string;
  readonly #rules: OrganizationRules;
  readonly #keys: ConstructorParameters<typeof Groups>[1];

  private constructor(
    name: string,
    ids: { userId: string; deviceId: string },
    rules: OrganizationRules,
    keys: ConstructorParameters<typeof Groups>[1],
  ) {
    this.#name = name;
    this.userId = ids.userId;
    this.deviceId = ids.deviceId;
    this.#rules = rules;
    this.#keys = keys;
  }

  static async make(organization: Organization, name: string): Promise<EnginePerson> {
    const enrolment = await organization.enrol("physician");
    const [userKey, deviceKey, deviceId] = [generateSigningSeed(), generateSigningSeed(), makeId()];
    const user = await makeUserCertificate(enrolment, await publicKeyOf(userKey), name, now());
    const signatureKey = await publicKeyOf(deviceKey);
    const label = `${name}'s phone`;
    const issuer = { certificate: user, key: userKey };
    const device = await makeDeviceCertificate(issuer, { publicKey: signatureKey, label, deviceId }, now());
    const rules = await OrganizationRules.create({
      authority: organization.authority.certificate.raw,
      externalSender: organization.externalSender,
      now,
    });
    const certificates = [device.raw, user.raw, enrolment.certificate.raw];
    const { userId } = enrolment.certificate.subject;
    const keys = { certificates, signatureSeed: deviceKey.reveal(), signatureKey };
    const person = new EnginePerson(name, { userId, deviceId }, rules, keys);
    await person.open();
    return person;
  }

  /** Opens the vault, as after the program ended without a word: what was only in memory is gone. */
  async open(): Promise<void> {
    this.vault = await Vault.open(diskFiles(this.#folder), VAULT_KEY, loadFromDisk);
    this.groups = new Groups(this.vault, this.#keys, this.#rules);
    const me = { userId: this.userId, deviceId: this.deviceId };
    this.engine = new Engine(this.vault, this.groups, me);
    this.views = new Views(this.vault, this.groups, { ...me, name: this.#name, role: "physician" });
    this.effects = [];
  }

  close(): void {
    this.vault.close();
    rmSync(this.#folder, { recursive: true });
  }

  /** The server says that everything was sent: from here on the outbox may be released. */
  async caughtUp(): Promise<void> {
    this.keep(this.engine.connected());
    this.keep(await this.engine.received({ type: "caught_up" }, Date.now()));
  }

  keep(effects: readonly Effect[]): void {
    this.effects.push(...effects);
  }

  async hear(...items: readonly Entry[]): Promise<Effect[]> {
    const effects = await this.engine.received({ type: "entries", items }, Date.now());
    this.keep(effects);
    return effects;
  }

  /** Writes a text; the envelope that leaves the device. */
  async write(conversation: string, text: string): Promise<{ request: number; entry: Omit<Entry, "sequence"> }> {
    const { text: makeText } = await import("../wire/content");
    const { effects } = await this.engine.write(conversation, makeText(text), Date.now());
    this.keep(effects);
    return this.takeSend(conversation);
  }

  /** The last Send among the effects. */
  takeSend(conversation: string): { request: number; entry: Omit<Entry, "sequence"> } {
    const sent = this.effects.map((effect) => (effect.kind === "send" ? effect.frame : undefined));
    const frame = sent.filter((candidate) => candidate?.type === "send").at(-1);
    if (frame?.type !== "send") throw new Error("nothing was sent");
    const { messageId, envelope, request } = frame;
    return { request, entry: { conversation, kind: 0, messageId, receivedAt: Date.now(), envelope } };
  }

  /** Stages a commit; its entry, and the Welcome for whom it adds. */
  async commit(
    conversation: string,
    change: Change | readonly Uint8Array[],
  ): Promise<{ entry: Omit<Entry, "sequence">; welcome: Uint8Array }> {
    const [effect] = await this.engine.commit(conversation, "length" in change ? { add: change } : change);
    if (effect?.kind !== "post-commit") throw new Error("no commit was made");
    const { message_id, commit, welcome } = effect.request;
    const messageId = decodeBase64url(message_id);
    const entry = { conversation, kind: 1, messageId, receivedAt: Date.now(), envelope: decodeBase64url(commit) };
    return { entry, welcome: decodeBase64url(welcome ?? "") };
  }

  /** A Welcome in the device's queue. */
  async welcome(conversation: string, sequence: number, payload: Uint8Array): Promise<Effect[]> {
    const item = { position: ++this.#position, kind: 0, conversation, sequence, payload };
    const effects = await this.engine.received({ type: "queue", items: [item] }, Date.now());
    this.keep(effects);
    return effects;
  }

  /** The Welcome of a group that this person makes under an id which is another one's. */
  async forge(conversation: string, policy: GroupPolicy, victim: EnginePerson): Promise<Uint8Array> {
    const device = new Device(this.#keys, this.#rules);
    const group = await device.createGroup(decodeId(conversation), encodeGroupPolicy(policy), now());
    const [keyPackage] = await victim.engine.makeKeyPackages(1, Date.now());
    const { welcome } = await group.stageCommit({ add: [keyPackage ?? new Uint8Array()] }, new Uint8Array(16));
    return welcome ?? new Uint8Array();
  }

  async texts(conversation: string): Promise<string[]> {
    return this.views.page(conversation, 1000).messages.map((message) => message.text);
  }
}

/** A conversation in which everybody is caught up; its commit was entry 1. */
export async function gather(
  founder: EnginePerson,
  others: readonly EnginePerson[],
  policy: GroupPolicy,
): Promise<string> {
  const wanted = { kind: policy.kind, policy: encodeGroupPolicy(policy), title: "" };
  const { conversation_id: id } = await founder.engine.create(wanted, Date.now());
  const packages: Uint8Array[] = [];
  for (const other of others) packages.push(...(await other.engine.makeKeyPackages(1, Date.now())));
  const { entry, welcome } = await founder.commit(id, packages);
  await founder.hear({ ...entry, sequence: 1 });
  for (const other of others) await other.welcome(id, 1, welcome);
  for (const each of [founder, ...others]) await each.caughtUp();
  return id;
}

/** Checks that failed, of what the person is told. */
export function refusedOf(effects: readonly Effect[]): unknown[] {
  return effects.flatMap((effect) => (effect.kind === "notice" ? [effect.error.members["check"]] : []));
}
