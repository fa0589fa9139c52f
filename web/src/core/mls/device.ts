import {
  type Capabilities,
  type Extension,
  type KeyPackage,
  type PrivateKeyPackage,
  createGroup,
  emptyPskIndex,
  encodeRequiredCapabilities,
  generateKeyPackageWithKey,
  joinGroup,
} from "ts-mls";
import { encode } from "ts-mls/codec/tlsEncoder.js";
import { varLenDataEncoder } from "ts-mls/codec/variableLength.js";
import { makeKeyPackageRef } from "ts-mls/keyPackage.js";
import { CurbsideError, malformed } from "../errors";
import { KEY_PACKAGE_SECONDS, configFor } from "./config";
import { Group } from "./group";
import { handshakeRefusal } from "./refusals";
import { verifyLeaf } from "./roster";
import { joinFields, sameBytes, splitFields } from "./saved";
import { SUITE_NAME, encodeMessage, loadSuite, parseMessage } from "./suite";
import { type DeviceKeys, type GroupRules, type LeafIdentity, POLICY_EXTENSION } from "./types";

/** A key package for others and, beside it, what opens a Welcome made for it; the vault keeps `secrets` until then. */
export interface MadeKeyPackage {
  /** KeyPackageRef (RFC 9420 section 5.2). */
  readonly reference: Uint8Array;
  /** MLSMessage. */
  readonly keyPackage: Uint8Array;
  readonly secrets: Uint8Array;
}

const CAPABILITIES: Capabilities = {
  versions: ["mls10"],
  ciphersuites: [SUITE_NAME],
  extensions: [POLICY_EXTENSION],
  proposals: [],
  credentials: ["x509"],
};
const CLOCK_SLACK = 3600n;

/** One MLS client: what it makes before there is a group. It keeps no state; secrets go in and out as bytes. */
export class Device<I extends LeafIdentity> {
  readonly #keys: DeviceKeys;
  readonly #rules: GroupRules<I>;

  constructor(keys: DeviceKeys, rules: GroupRules<I>) {
    this.#keys = keys;
    this.#rules = rules;
  }

  /** `now`: Unix seconds. */
  async keyPackage(now: number): Promise<MadeKeyPackage> {
    const suite = await loadSuite();
    const start = BigInt(now) - CLOCK_SLACK;
    const made = await generateKeyPackageWithKey(
      { credentialType: "x509", certificates: [...this.#keys.certificates] },
      CAPABILITIES,
      { notBefore: start, notAfter: start + KEY_PACKAGE_SECONDS },
      [],
      { signKey: this.#keys.signatureSeed, publicKey: this.#keys.signatureKey },
      suite,
    );
    const keyPackage = encodeKeyPackageMessage(made.publicPackage);
    const { initPrivateKey, hpkePrivateKey } = made.privatePackage;
    return {
      reference: await makeKeyPackageRef(made.publicPackage, suite.hash),
      keyPackage,
      secrets: joinFields([keyPackage, initPrivateKey, hpkePrivateKey]),
    };
  }

  /** A group of epoch 0 with only this device, with the conversation's policy (bytes of extension 0xFA01). */
  async createGroup(groupId: Uint8Array, policy: Uint8Array, now: number): Promise<Group<I>> {
    const suite = await loadSuite();
    const own = this.#openSecrets((await this.keyPackage(now)).secrets);
    const { client, refused } = configFor(this.#rules);
    try {
      const state = await createGroup(groupId, own.publicPackage, own.privatePackage, this.#extensions(policy), suite, client);
      return await Group.admit(state, this.#rules);
    } catch (error) {
      throw refused.error ?? handshakeRefusal(error, "mls.group.create");
    }
  }

  /** References of the key packages that a Welcome is for; the vault looks up which of them is ours. */
  static welcomeReferences(welcome: Uint8Array): Uint8Array[] {
    return parseMessage(welcome, "mls_welcome").welcome.secrets.map((entry) => entry.newMember);
  }

  /**
   * Joins by a Welcome with the key package it was made for. The caller deletes `secrets` in the transaction that saves
   * the group. Every leaf's chain and the group rules are verified first.
   */
  async join(welcome: Uint8Array, secrets: Uint8Array): Promise<Group<I>> {
    const suite = await loadSuite();
    const own = this.#openSecrets(secrets);
    const message = parseMessage(welcome, "mls_welcome");
    const { client, refused } = configFor(this.#rules);
    try {
      const state = await joinGroup(
        message.welcome,
        own.publicPackage,
        own.privatePackage,
        emptyPskIndex,
        suite,
        undefined,
        undefined,
        client,
      );
      return await Group.admit(state, this.#rules);
    } catch (error) {
      throw refused.error ?? handshakeRefusal(error, "mls.welcome");
    }
  }

  #openSecrets(secrets: Uint8Array): { publicPackage: KeyPackage; privatePackage: PrivateKeyPackage } {
    const [keyPackage, initPrivateKey, hpkePrivateKey] = splitFields(secrets, 3) as [Uint8Array, Uint8Array, Uint8Array];
    return {
      publicPackage: parseMessage(keyPackage, "mls_key_package").keyPackage,
      privatePackage: { initPrivateKey, hpkePrivateKey, signaturePrivateKey: this.#keys.signatureSeed },
    };
  }

  #extensions(policy: Uint8Array): Extension[] {
    const required = { extensionTypes: [POLICY_EXTENSION], proposalTypes: [], credentialTypes: ["x509" as const] };
    return [
      { extensionType: "required_capabilities", extensionData: encodeRequiredCapabilities(required) },
      { extensionType: "external_senders", extensionData: externalSenders(this.#rules.externalSender) },
      { extensionType: POLICY_EXTENSION, extensionData: policy },
    ];
  }
}

/** The external_senders extension with one sender: a vector around its encoding (RFC 9420 section 12.1.8.1). */
export function externalSenders(sender: Uint8Array): Uint8Array {
  return encode(varLenDataEncoder)(sender);
}

function encodeKeyPackageMessage(keyPackage: KeyPackage): Uint8Array {
  return encodeMessage({ version: "mls10", wireformat: "mls_key_package", keyPackage });
}

/**
 * Whose device a claimed key package is, its chain verified; that it is of the device asked for is checked too, so that
 * a server cannot answer with another one's.
 */
export async function verifyKeyPackage<I extends LeafIdentity>(
  bytes: Uint8Array,
  wanted: LeafIdentity,
  rules: GroupRules<I>,
): Promise<I> {
  const { keyPackage } = parseMessage(bytes, "mls_key_package");
  const identity = await verifyLeaf(keyPackage.leafNode, rules);
  if (identity.userId !== wanted.userId || identity.deviceId !== wanted.deviceId)
    throw new CurbsideError("untrusted_device", "", { device: wanted.deviceId, check: "trust.user.match" });
  if (!sameBytes(bytes, encodeKeyPackageMessage(keyPackage))) throw malformed("a key package in another encoding");
  return identity;
}
