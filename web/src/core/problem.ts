import type { Problem } from "../bridge/types";
import { CurbsideError, isErrorCode } from "./errors";

/** An error as the page sees it. What is no error of ours is a defect, and says no more than that. */
export function problemOf(error: unknown): Problem {
  const known = error instanceof CurbsideError ? error : new CurbsideError("internal");
  const { code, title, message, nextStep, members } = known;
  const plain = Object.entries(members).filter(([, value]) => typeof value === "string" || typeof value === "number");
  return { code, title, detail: message, nextStep, members: Object.fromEntries(plain) };
}

/** An error as the JSON that the vault keeps: code, title, detail, next step. Twin of outbox.problem_json. */
export function problemJson(error: CurbsideError): string {
  const { code, title, detail, nextStep, members } = problemOf(error);
  return JSON.stringify({ code, title, detail, next_step: nextStep, members });
}

/** The problem that the vault kept; undefined for "". */
export function storedProblem(json: string): Problem | undefined {
  if (json === "") return undefined;
  const kept = JSON.parse(json) as { code: string; title: string; detail: string; next_step: string; members?: object };
  return {
    code: kept.code,
    title: kept.title,
    detail: kept.detail,
    nextStep: kept.next_step,
    members: { ...kept.members },
  };
}

/** The error that a Refused or Closing frame stands for; an unknown code is tried again, as if the server were away. */
export function errorOfFrame(code: string, detail: string, members: Readonly<Record<string, unknown>> = {}): CurbsideError {
  return isErrorCode(code) ? new CurbsideError(code, detail, members) : new CurbsideError("peer_unavailable");
}
