// Key material that cannot be printed, serialised or compared by accident. Twin of src/curbside/crypto/secret.py.

import { CurbsideError } from "../errors";
import { type Bytes, isSame } from "./bytes";

/** Bytes that must not leak. `reveal()` is the only way in, and is easy to search for. */
export class SecretBytes {
  readonly #value: Bytes;

  /** Copies `value`; the caller wipes its own. */
  constructor(value: Uint8Array) {
    this.#value = Uint8Array.from(value);
  }

  get length(): number {
    return this.#value.length;
  }

  /** The secret bytes themselves, not a copy: gone after `wipe()`. The caller must not store, print or log them. */
  reveal(): Bytes {
    return this.#value;
  }

  /** Overwrites the value with zeros. The engine may have made copies: this lowers the risk, it does not end it. */
  wipe(): void {
    this.#value.fill(0);
  }

  /** Whether both hold the same bytes, in constant time. */
  isSame(other: SecretBytes): boolean {
    return isSame(this.#value, other.#value);
  }

  toString(): string {
    return "<SecretBytes>";
  }

  toJSON(): never {
    throw new CurbsideError("internal", "a secret must not be serialised");
  }
}
