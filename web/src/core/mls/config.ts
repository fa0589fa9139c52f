import { type ClientConfig, defaultKeyPackageEqualityConfig } from "ts-mls";
import { encodeExternalSender } from "ts-mls/externalSender.js";
import type { CurbsideError } from "../errors";
import { paddingFor } from "./padding";
import { claimOf } from "./roster";
import { sameBytes } from "./saved";
import type { GroupRules, LeafIdentity } from "./types";

/** Epochs whose messages can still be opened, and skipped messages of one sender (forward secrecy: docs of the MLS adapter). */
const KEPT_EPOCHS = 3;
const KEPT_SKIPPED = 64;
const MOST_AHEAD = 1000;
/** Three months: the longest life of a key package. */
export const KEY_PACKAGE_SECONDS = 90n * 24n * 3600n;

/** ts-mls's settings for one operation. `refused` holds what the credential check threw, because ts-mls takes only a boolean. */
export interface OperationConfig {
  readonly client: ClientConfig;
  readonly refused: { error?: CurbsideError };
}

export function configFor<I extends LeafIdentity>(rules: GroupRules<I>, dataLength = 0): OperationConfig {
  const refused: { error?: CurbsideError } = {};
  const client: ClientConfig = {
    keyRetentionConfig: {
      retainKeysForGenerations: KEPT_SKIPPED,
      retainKeysForEpochs: KEPT_EPOCHS,
      maximumForwardRatchetSteps: MOST_AHEAD,
    },
    lifetimeConfig: { maximumTotalLifetime: KEY_PACKAGE_SECONDS, validateLifetimeOnReceive: false },
    keyPackageEqualityConfig: defaultKeyPackageEqualityConfig,
    paddingConfig: paddingFor(dataLength),
    authService: {
      async validateCredential(credential, signaturePublicKey) {
        // The delivery service's credential is no chain. That no leaf carries it is checked with the roster.
        if (sameBytes(encodeExternalSender({ credential, signaturePublicKey }), rules.externalSender)) return true;
        try {
          await rules.verifyLeaf(claimOf(credential, signaturePublicKey));
          return true;
        } catch (error) {
          refused.error ??= error as CurbsideError;
          return false;
        }
      },
    },
  };
  return { client, refused };
}
