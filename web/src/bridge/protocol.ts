// The messages between page and Worker. Plain data; both ends are in this folder and in core/worker.ts.

import type { Core, CoreEvent, Problem } from "./types";

export type Method = keyof Core;

export const METHODS = [
  "state",
  "previewInvite",
  "join",
  "ratePassphrase",
  "unlock",
  "lock",
  "people",
  "conversations",
  "conversation",
  "startConversation",
  "addPeople",
  "messages",
  "sendText",
  "sendPhoto",
  "retry",
  "discard",
  "openImage",
  "markRead",
  "saveDraft",
  "safetyNumber",
] as const satisfies readonly Method[];

/** "poke": the page is looked at again, or the network is back. */
export type ToWorker =
  | { readonly kind: "request"; readonly id: number; readonly method: Method; readonly args: readonly unknown[] }
  | { readonly kind: "poke" };

export type FromWorker =
  | { readonly kind: "answer"; readonly id: number; readonly result: unknown }
  | { readonly kind: "refusal"; readonly id: number; readonly problem: Problem }
  | { readonly kind: "event"; readonly event: CoreEvent };

/** Fails to compile when a method of Core is missing from METHODS. */
export type AllMethods = Exclude<Method, (typeof METHODS)[number]> extends never ? true : never;
export const ALL_METHODS: AllMethods = true;
