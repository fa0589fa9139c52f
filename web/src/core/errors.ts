// The client's one error class. Codes, titles and next steps are those of src/curbside/errors.py.

import { type ErrorCode, PROBLEMS, type Retry } from "./errors.generated";

export { type ErrorCode, PROBLEMS, type Retry };

export type Members = Readonly<Record<string, unknown>>;

/** One error by its code. `message` is a sentence for this occurrence; it never holds content, names or secrets. */
export class CurbsideError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly retry: Retry;
  readonly title: string;
  readonly nextStep: string;
  readonly members: Members;

  constructor(code: ErrorCode, detail = "", members: Members = {}) {
    const problem = PROBLEMS[code];
    super(detail || problem.title);
    this.name = problem.name;
    this.code = code;
    this.status = problem.status;
    this.retry = problem.retry;
    this.title = problem.title;
    this.nextStep = problem.nextStep;
    this.members = members;
  }
}

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(PROBLEMS, code);
}

export function isCurbsideError(error: unknown, code?: ErrorCode): error is CurbsideError {
  return error instanceof CurbsideError && (code === undefined || error.code === code);
}

/** The bytes cannot be decoded. */
export function malformed(detail: string): CurbsideError {
  return new CurbsideError("malformed", detail);
}

/** Over a size limit, in bytes or items. */
export function tooLarge(detail: string, limit: number): CurbsideError {
  return new CurbsideError("too_large", detail, { limit });
}

const PROBLEM_TYPE = "urn:curbside:problem:";
const PLAIN_MEMBERS = new Set(["type", "title", "status", "detail", "instance", "next_step"]);

/** The error that an `application/problem+json` body stands for; a body that is none becomes `peer_unavailable`. */
export function fromProblem(body: unknown): CurbsideError {
  if (typeof body !== "object" || body === null) return new CurbsideError("peer_unavailable");
  const { type, detail } = body as { type?: unknown; detail?: unknown };
  const code = typeof type === "string" && type.startsWith(PROBLEM_TYPE) ? type.slice(PROBLEM_TYPE.length) : "";
  if (!isErrorCode(code)) return new CurbsideError("peer_unavailable");
  const members = Object.entries(body).filter(([name]) => !PLAIN_MEMBERS.has(name));
  return new CurbsideError(code, typeof detail === "string" ? detail : "", Object.fromEntries(members));
}
