import { describe, expect, it } from "vitest";
import { forwardDistance } from "./gestures";

describe("forwardDistance", () => {
  it("counts only towards the end of the line, and mirrors", () => {
    expect(forwardDistance(70, false)).toBe(70);
    expect(forwardDistance(-70, false)).toBe(0);
    expect(forwardDistance(-70, true)).toBe(70);
    expect(forwardDistance(70, true)).toBe(0);
    expect(forwardDistance(500, false)).toBeLessThan(100);
  });
});
