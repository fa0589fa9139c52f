// What the engine asks its shell to do, as values. They are released only after what caused them is saved.

import type { CurbsideError } from "./errors";
import type { NewCommit } from "./wire/bodies.generated";
import type { ClientFrame } from "./wire/frames.generated";

export type Effect =
  /** Put a frame on the stream; lost if there is none, and then made again at the next Sync. */
  | { readonly kind: "send"; readonly frame: ClientFrame }
  /** POST a commit; its outcome comes back as `Engine.commitAnswered`, its entry through the log. */
  | { readonly kind: "post-commit"; readonly conversation: string; readonly request: NewCommit }
  /** A message of somebody else, or a note, is in the vault. */
  | { readonly kind: "arrived"; readonly conversation: string; readonly message: string }
  /** Something about a conversation changed: delivery of `message`, or title, members, alarm. */
  | { readonly kind: "changed"; readonly conversation: string; readonly message?: string }
  /** A commit of ours was accepted, or another won (then it may be tried again in the new epoch). */
  | { readonly kind: "commit-settled"; readonly conversation: string; readonly error?: CurbsideError }
  /** All entries that the server held at the last Sync are processed. */
  | { readonly kind: "caught-up" }
  /** This device was added to a conversation. */
  | { readonly kind: "joined"; readonly conversation: string }
  /** Something was refused; for the person to see. */
  | { readonly kind: "notice"; readonly conversation?: string; readonly error: CurbsideError }
  /** Release a conversation's outbox again after that many seconds. */
  | { readonly kind: "retry"; readonly conversation: string; readonly seconds: number };

export function sendFrame(frame: ClientFrame): Effect {
  return { kind: "send", frame };
}

export function changed(conversation: string, message?: string): Effect {
  return message === undefined ? { kind: "changed", conversation } : { kind: "changed", conversation, message };
}
