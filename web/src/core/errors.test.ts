import { describe, expect, it } from "vitest";
import { CurbsideError, fromProblem, isCurbsideError, PROBLEMS, tooLarge } from "./errors";

describe("errors", () => {
  it("carry what their code says", () => {
    const error = new CurbsideError("epoch_conflict", "", { current_epoch: 7 });
    expect(error).toMatchObject({ name: "EpochConflict", status: 409, retry: "after_sync" });
    expect(error.message).toBe(PROBLEMS.epoch_conflict.title);
    expect(error.nextStep).toBe(PROBLEMS.epoch_conflict.nextStep);
    expect(error.members).toEqual({ current_epoch: 7 });
    expect(isCurbsideError(tooLarge("x", 5), "too_large")).toBe(true);
    expect(isCurbsideError(new Error("x"))).toBe(false);
  });

  it("come back from a problem, with its members", () => {
    const type = "urn:curbside:problem:offset_conflict";
    const error = fromProblem({ type, title: "t", status: 409, detail: "at 5", instance: "r1", next_step: "n", offset: 5 });
    expect(error.code).toBe("offset_conflict");
    expect(error.message).toBe("at 5");
    expect(error.members).toEqual({ offset: 5 });
  });

  it.each([null, "x", {}, { type: "about:blank" }, { type: "urn:curbside:problem:toString" }, { type: 5 }])(
    "take %o for a server that is not there",
    (body) => {
      expect(fromProblem(body).code).toBe("peer_unavailable");
    },
  );
});
