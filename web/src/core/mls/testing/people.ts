import { encodeExternalSender } from "ts-mls/externalSender.js";
import { CurbsideError } from "../../errors";
import { Device, type MadeKeyPackage } from "../device";
import { externalSenders } from "../device";
import { sameBytes } from "../saved";
import { loadSuite } from "../suite";
import type { DeviceKeys, GroupRules, GroupView, LeafClaim, LeafIdentity, Transition } from "../types";

// Rules small enough to read: the three "certificates" are the device id, the user id and a word that vouches.
const text = new TextEncoder();
const read = new TextDecoder();
export const VOUCHED = "vouched";
export const POLICY = text.encode("policy 1");
export const NOW = Math.floor(Date.now() / 1000);

export interface DeliveryService {
  readonly seed: Uint8Array;
  readonly key: Uint8Array;
  readonly encoded: Uint8Array;
}

export async function makeDeliveryService(): Promise<DeliveryService> {
  const { signature } = await loadSuite();
  const pair = await signature.keygen();
  const credential = { credentialType: "basic" as const, identity: text.encode("delivery") };
  const encoded = encodeExternalSender({ signaturePublicKey: pair.publicKey, credential });
  return { seed: pair.signKey, key: pair.publicKey, encoded };
}

/** Rules that a test can tighten: `refuse` is asked about each transition. */
export class Rules implements GroupRules {
  readonly externalSender: Uint8Array;
  seen: Transition[] = [];
  refuse: ((transition: Transition) => boolean) | undefined;

  constructor(service: DeliveryService) {
    this.externalSender = service.encoded;
  }

  async verifyLeaf(claim: { certificates: readonly Uint8Array[] }): Promise<LeafIdentity> {
    const [deviceId = "", userId = "", word] = claim.certificates.map((bytes) => read.decode(bytes));
    if (word !== VOUCHED) throw new CurbsideError("untrusted_device", "", { device: deviceId, check: "test" });
    return { deviceId, userId };
  }

  identifyLeaf(claim: LeafClaim): Promise<LeafIdentity> {
    return this.verifyLeaf(claim);
  }

  verifySuccessor(previous: LeafIdentity, next: LeafIdentity): void {
    if (previous.deviceId !== next.deviceId)
      throw new CurbsideError("untrusted_device", "", { device: next.deviceId, check: "trust.successor.user" });
  }

  verifyTransition(transition: Transition): void {
    this.seen.push(transition);
    if (this.refuse?.(transition) === true) throw new CurbsideError("rule_broken", "", { check: "test.rule" });
  }

  verifyGroup(view: GroupView): void {
    const expected = externalSenders(this.externalSender);
    if (view.externalSenders === undefined || !sameBytes(view.externalSenders, expected))
      throw new CurbsideError("rule_broken", "", { check: "group.sender.key" });
  }
}

export interface TestDevice {
  readonly device: Device<LeafIdentity>;
  readonly keys: DeviceKeys;
  readonly rules: Rules;
  keyPackage(): Promise<MadeKeyPackage>;
}

export async function makeDevice(service: DeliveryService, name: string, word = VOUCHED): Promise<TestDevice> {
  const { signature } = await loadSuite();
  const pair = await signature.keygen();
  const keys = {
    certificates: [text.encode(`${name}-phone`), text.encode(name), text.encode(word)],
    signatureSeed: pair.signKey.slice(-32),
    signatureKey: pair.publicKey,
  };
  const rules = new Rules(service);
  const device = new Device<LeafIdentity>(keys, rules);
  return { device, keys, rules, keyPackage: () => device.keyPackage(NOW) };
}
