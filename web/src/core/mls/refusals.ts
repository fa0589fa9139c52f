import { CodecError, CryptoError, CryptoVerificationError } from "ts-mls/mlsError.js";
import { CurbsideError } from "../errors";

/** The error of ours that a refusal of a handshake inside ts-mls stands for; `check` names the step. */
export function handshakeRefusal(error: unknown, check: string): CurbsideError {
  if (error instanceof CurbsideError) return error;
  if (error instanceof CodecError) return new CurbsideError("malformed");
  if (error instanceof CryptoVerificationError) return new CurbsideError("bad_signature");
  if (error instanceof CryptoError) return new CurbsideError("decryption_failed");
  return new CurbsideError("rule_broken", `check ${check} failed`, { check });
}

/** The same for an application message: no reason goes outward but "replayed", which names our own deletion. */
export function messageRefusal(error: unknown): CurbsideError {
  if (error instanceof CurbsideError) return error;
  if (error instanceof CryptoVerificationError) return new CurbsideError("bad_signature");
  if (error instanceof Error && error.message === "Desired gen in the past") return new CurbsideError("replayed");
  return new CurbsideError("decryption_failed");
}
