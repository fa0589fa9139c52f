/** What the state needs of the bridge: the core to ask, and a way to be told. The preview gives a pretend one. */

import type { Core, CoreEvent, Problem } from "../bridge/types";

export interface Client {
  core: Core;
  subscribe(listener: (event: CoreEvent) => void): () => void;
}

/** The Problem a rejected request carries; anything else becomes our own fault, said plainly. */
export function asProblem(error: unknown): Problem {
  if (typeof error === "object" && error !== null && "code" in error && "title" in error) {
    const given = error as Partial<Problem>;
    return {
      code: String(given.code),
      title: String(given.title),
      detail: given.detail ?? "",
      nextStep: given.nextStep ?? "",
      ...(given.members ? { members: given.members } : {}),
    };
  }
  return {
    code: "internal",
    title: "Curbside made a mistake.",
    detail: "",
    nextStep: "Try again; if it happens again, tell your administrator the time it happened.",
  };
}
