// Ids of messages. The same as tests/unit/client/test_outbox.py.

import { describe, expect, it } from "vitest";
import { decodeId, makeMessageId } from "./ids";

const HOUR_MS = 3_600_000;

describe("a message's id", () => {
  it("begins with the hour and is like no other", () => {
    const ids = Array.from({ length: 60 }, (_, minute) => makeMessageId(497_222 * HOUR_MS + minute * 60_000));
    for (const id of ids) expect([...decodeId(id).subarray(0, 4)]).toEqual([0, 7, 150, 70]);
    expect(new Set(ids).size).toBe(60);
  });

  it("is made with a clock that is far off, too", () => {
    for (const nowMs of [-1, 0, 2 ** 53]) expect(decodeId(makeMessageId(nowMs))).toHaveLength(16);
  });
});
