// Sign-up by invite, sign-in, and the identity that a vault holds. Twin of src/curbside/client/account.py.

import { makeProof, signApiKey } from "./crypto/jose";
import { finishLogin, finishRegistration, startLogin, startRegistration } from "./crypto/opaque";
import { ratePassphrase } from "./crypto/passphrase_rating";
import { generateSigningSeed, publicKeyOf } from "./crypto/primitives";
import { SecretBytes } from "./crypto/secret";
import { makeDeviceCertificate, makeIssuer, makeUserCertificate } from "./crypto/x509";
import { CurbsideError, isCurbsideError } from "./errors";
import { Groups } from "./groups";
import { decodeBase64url, encodeBase64url, makeId } from "./ids";
import type { DeviceKeys } from "./mls/types";
import { type Clock, Transport } from "./transport";
import { OrganizationRules, type VerifiedInvite, verifyInvite } from "./trust";
import type { VaultFiles } from "./vault/files";
import type { ModuleLoader } from "./vault/module";
import type { Vault } from "./vault/vault";
import { createVault, eraseVault } from "./vault/wraps";
import type { Owner } from "./views";
import type {
  Invite,
  Organization,
  Session,
  SigninFinish,
  SigninStart,
  SigninStarted,
  SignupFinish,
  SignupStart,
  SignupStarted,
} from "./wire/bodies.generated";
import { type InviteLink, parseInviteLink } from "./wire/invite_link";

const FIRST_KEY_PACKAGES = 30;
const FINISH_TRIES = 3;
const FINALIZATION_BYTES = 64;
const NO_PROOF = { needs: "nothing" } as const;
const WITH_KEY = { needs: "key" } as const;

/** What this device's surroundings give it. */
export interface Surroundings {
  readonly files: VaultFiles;
  readonly load: ModuleLoader;
  readonly clock: Clock;
  /** Scheme, host and port of the page. */
  readonly origin: string;
  /** What others see as this device's name. */
  readonly label: string;
}

export interface SignUp {
  readonly link: string;
  readonly name: string;
  readonly passphrase: string;
}

/** Who this device is, out of its vault. `wipe` when the vault is locked. */
export interface Identity {
  readonly keys: DeviceKeys;
  readonly apiKey: SecretBytes;
  readonly rules: OrganizationRules;
  readonly owner: Owner;
  readonly organization: string;
  readonly server: string;
  wipe(): void;
}

/** Throws `not_found` when sign-up was not completed. */
export async function loadIdentity(vault: Vault, clock: Clock): Promise<Identity> {
  const { rows } = vault;
  const seed = new SecretBytes(rows.getSecret("device_key"));
  const apiKey = new SecretBytes(rows.getSecret("api_key"));
  const keys: DeviceKeys = {
    certificates: ["device", "user", "enrolment"].map((name) => rows.getCertificate(name)),
    signatureSeed: seed.reveal(),
    signatureKey: await publicKeyOf(seed),
  };
  const rules = await OrganizationRules.create({
    authority: rows.getCertificate("authority"),
    externalSender: decodeBase64url(rows.getSetting("external_sender")),
    now: () => seconds(clock),
  });
  return {
    keys,
    apiKey,
    rules,
    owner: {
      userId: rows.getSetting("user_id"),
      deviceId: rows.getSetting("device_id"),
      name: rows.getSetting("name"),
      role: rows.getSetting("role"),
    },
    organization: rows.getSetting("organization"),
    server: rows.getSetting("server"),
    wipe: () => {
      seed.wipe();
      apiKey.wipe();
    },
  };
}

/** Proofs by a device's API key. */
export function proverOf(apiKey: SecretBytes) {
  return (request: Parameters<typeof makeProof>[1]): Promise<string> => makeProof(apiKey, request);
}

/** The invite behind a link, verified against it. Throws `malformed`, `untrusted_device`, `invite_expired`, `invite_used`. */
export async function fetchInvite(text: string, around: Surroundings): Promise<{ link: InviteLink; invite: VerifiedInvite }> {
  const link = parseInviteLink(text);
  if (link.origin !== around.origin)
    throw new CurbsideError("malformed", `This invite is for ${link.origin}. Open its link there.`);
  const transport = new Transport(around.origin, proverOf(generateSigningSeed()), around.clock);
  const answer = await transport.call<Invite>("GET", `/v1/invites/${link.inviteId}`, undefined, NO_PROOF);
  return { link, invite: await verifyInvite(link, answer, seconds(around.clock)) };
}

/**
 * Makes keys and vault, enrols with the server, and gives the open vault. Everything is in the vault before the server
 * hears of it, so that a lost answer loses no key: when the server says that the invite was used, signing in tells whether
 * it was used by us. Where nobody can tell (the server is away, the page is closed), the vault stays, and `finishJoining`
 * finds out.
 */
export async function signUp(
  wanted: SignUp,
  around: Surroundings,
  progress: (done: number, text: string) => void,
): Promise<{ vault: Vault; session: Session }> {
  progress(0, "Checking the invite");
  const { link, invite } = await fetchInvite(wanted.link, around);
  const score = ratePassphrase(wanted.passphrase, wanted.name, invite.organization);
  if (!score.acceptable) throw new CurbsideError("rule_broken", score.hint, { check: "passphrase.strength" });
  const apiKey = generateSigningSeed();
  const transport = new Transport(around.origin, proverOf(apiKey), around.clock);
  const organization = await transport.call<Organization>("GET", "/v1/organization", undefined, NO_PROOF);
  progress(1, "Registering your passphrase");
  const record = await registerPassphrase(wanted.passphrase, link, transport);
  progress(2, "Making keys");
  const vault = await createVault(around.files, wanted.passphrase, around.load);
  let isAsked = false;
  try {
    const request = await enrol({ vault, wanted, link, invite, organization, apiKey, record, around });
    progress(3, "Signing up");
    isAsked = true;
    const session = await finishSignUp(vault, transport, request, wanted.passphrase);
    await vault.transaction((rows) => rows.putSetting("joined", "yes"));
    return { vault, session };
  } catch (error) {
    vault.close();
    const isRefused = error instanceof CurbsideError && error.retry !== "later";
    if (isRefused || !isAsked) await eraseVault(around.files);
    throw error;
  } finally {
    apiKey.wipe();
  }
}

/**
 * Asks how a sign-up ended whose end nobody heard: a session if the server took it, undefined if it did not. Throws
 * `peer_unavailable`, `too_many`.
 */
export async function finishJoining(vault: Vault, passphrase: string, around: Surroundings): Promise<Session | undefined> {
  let identity: Identity | undefined;
  try {
    identity = await loadIdentity(vault, around.clock);
    const transport = new Transport(identity.server, proverOf(identity.apiKey), around.clock);
    const session = await signIn(vault, transport, passphrase);
    await vault.transaction((rows) => rows.putSetting("joined", "yes"));
    return session;
  } catch (error) {
    if (["not_found", "wrong_passphrase", "device_revoked"].some((code) => isCurbsideError(error) && error.code === code))
      return undefined;
    throw error;
  } finally {
    identity?.wipe();
  }
}

async function registerPassphrase(passphrase: string, link: InviteLink, transport: Transport): Promise<Uint8Array> {
  const started = await startRegistration(passphrase);
  const request: SignupStart = { invite_id: link.inviteId, opaque_request: encodeBase64url(started.message) };
  const answer = await transport.call<SignupStarted>("POST", "/v1/signup/start", request, NO_PROOF);
  const response = decodeBase64url(answer.opaque_response);
  return (await finishRegistration(passphrase, started.state, response)).record;
}

interface Enrolment {
  readonly vault: Vault;
  readonly wanted: SignUp;
  readonly link: InviteLink;
  readonly invite: VerifiedInvite;
  readonly organization: Organization;
  readonly apiKey: SecretBytes;
  readonly record: Uint8Array;
  readonly around: Surroundings;
}

/** Makes keys and certificates, puts them into the vault, and gives the request that enrols them. */
async function enrol(of: Enrolment): Promise<SignupFinish> {
  const { vault, wanted, invite, apiKey, around } = of;
  const now = seconds(around.clock);
  const [userKey, deviceKey, deviceId] = [generateSigningSeed(), generateSigningSeed(), makeId()];
  const user = await makeUserCertificate(invite.enrolment, await publicKeyOf(userKey), wanted.name, now);
  const device = await makeDeviceCertificate(
    await makeIssuer(user, userKey),
    { publicKey: await publicKeyOf(deviceKey), label: around.label, deviceId },
    now,
  );
  const packages = await vault.transaction(async (rows) => {
    const secrets = { user_key: userKey, device_key: deviceKey, api_key: apiKey };
    for (const [name, key] of Object.entries(secrets)) rows.putSecret(name, key.reveal());
    const certificates = { authority: invite.authority, enrolment: invite.enrolment.certificate, user, device };
    for (const [name, certificate] of Object.entries(certificates)) rows.putCertificate(name, certificate.raw);
    const settings = {
      user_id: invite.userId,
      device_id: deviceId,
      name: wanted.name,
      role: invite.role,
      organization: invite.organization,
      server: around.origin,
      external_sender: of.organization.external_sender,
    };
    for (const [name, value] of Object.entries(settings)) rows.putSetting(name, value);
    const identity = await loadIdentity(vault, around.clock);
    const groups = new Groups(vault, identity.keys, identity.rules);
    const made = await groups.makeKeyPackages(FIRST_KEY_PACKAGES, now * 1000);
    const [lastResort] = await groups.makeKeyPackages(1, now * 1000, true);
    identity.wipe();
    return { made, lastResort: lastResort ?? new Uint8Array() };
  });
  const apiPublic = await publicKeyOf(apiKey);
  const request: SignupFinish = {
    invite_id: of.link.inviteId,
    opaque_record: encodeBase64url(of.record),
    user_certificate: encodeBase64url(user.raw),
    device: {
      device_id: deviceId,
      device_certificate: encodeBase64url(device.raw),
      api_key: encodeBase64url(apiPublic),
      api_key_signature: encodeBase64url(await signApiKey(deviceKey, deviceId, apiPublic)),
    },
    key_packages: packages.made.map(encodeBase64url),
    last_resort_key_package: encodeBase64url(packages.lastResort),
  };
  for (const key of [userKey, deviceKey]) key.wipe();
  return request;
}

async function finishSignUp(
  vault: Vault,
  transport: Transport,
  request: SignupFinish,
  passphrase: string,
): Promise<Session> {
  for (let tries = 1; ; tries++) {
    try {
      return await transport.call<Session>("POST", "/v1/signup/finish", request, WITH_KEY);
    } catch (error) {
      // The answer before was lost: the invite was used, perhaps by us.
      if (tries > 1 && isCurbsideError(error, "invite_used")) return signIn(vault, transport, passphrase);
      if (!isCurbsideError(error, "peer_unavailable") || tries === FINISH_TRIES) throw error;
    }
  }
}

/**
 * Signs in by OPAQUE; `transport.session` is set. Throws `wrong_passphrase`, `device_revoked`, `too_many`, `peer_unavailable`.
 *
 * A device that was removed gets an answer that no passphrase opens, as strangers do. Only the proof of its key, in the
 * second step, lets the server say that it was removed: so that is taken even then.
 */
export async function signIn(vault: Vault, transport: Transport, passphrase: string): Promise<Session> {
  transport.session = undefined;
  const started = await startLogin(passphrase);
  const start: SigninStart = {
    user_id: vault.rows.getSetting("user_id"),
    device_id: vault.rows.getSetting("device_id"),
    opaque_request: encodeBase64url(started.message),
  };
  const answer = await transport.call<SigninStarted>("POST", "/v1/signin/start", start, WITH_KEY);
  let finalization = new Uint8Array(FINALIZATION_BYTES);
  let refused: CurbsideError | undefined;
  try {
    const done = await finishLogin(passphrase, started.state, decodeBase64url(answer.opaque_response));
    finalization = new Uint8Array(done.finalization);
  } catch (error) {
    if (!(error instanceof CurbsideError) || error.code !== "wrong_passphrase") throw error;
    refused = error;
  }
  const finish: SigninFinish = {
    signin_id: answer.signin_id,
    opaque_finalization: encodeBase64url(finalization),
  };
  const session = await transport.call<Session>("POST", "/v1/signin/finish", finish, WITH_KEY);
  if (refused !== undefined) throw refused;
  transport.session = session;
  return session;
}

function seconds(clock: Clock): number {
  return Math.floor(clock.now() / 1000);
}
