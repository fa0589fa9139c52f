import { describe, expect, it } from "vitest";
import { dayName, fileSize, initials, isLong, rowTime, segments, textDirection, tone } from "./format";

const now = new Date(2026, 10, 23, 3, 12).getTime();
const at = (day: number, hour: number): number => new Date(2026, 10, day, hour, 0).getTime();

describe("times", () => {
  it("tells today, yesterday, a weekday and a date apart by the calendar, not by 24 hours", () => {
    expect(dayName(at(23, 0), now)).toBe("Today");
    expect(dayName(at(22, 23), now)).toBe("Yesterday");
    expect(dayName(at(20, 12), now)).toMatch(/Friday/);
    expect(dayName(at(2, 12), now)).toMatch(/2/);
    expect(rowTime(0, now)).toBe("");
    expect(rowTime(at(22, 23), now)).toBe("Yesterday");
    expect(rowTime(at(23, 1), now)).toMatch(/01|1/);
  });
});

describe("names", () => {
  it("takes first and last letters and leaves titles out", () => {
    expect(initials("Dr. Amara Ngozi Okafor")).toBe("AO");
    expect(initials("inês")).toBe("I");
    expect(initials("")).toBe("?");
    expect(initials("𝒳avier Y")).toBe("𝒳Y");
  });

  it("gives the same tone to the same id, and uses all of them", () => {
    expect(tone("u-1")).toBe(tone("u-1"));
    const used = new Set(Array.from({ length: 200 }, (_, index) => tone(`u-${index}`)));
    expect([...used].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });
});

describe("segments", () => {
  it("finds links and leaves the full stop after them alone", () => {
    expect(segments("see https://a.example/x?y=1. Thanks")).toEqual([
      { text: "see " },
      { text: "https://a.example/x?y=1", href: "https://a.example/x?y=1" },
      { text: ". Thanks" },
    ]);
    expect(segments("www.b.example")).toEqual([{ text: "www.b.example", href: "https://www.b.example" }]);
  });

  it("makes no link of anything that could run", () => {
    for (const text of ["javascript:alert(1)", "data:text/html,x", "blob:https", "file:///etc"]) {
      expect(segments(text).every((part) => part.href === undefined)).toBe(true);
    }
  });

  it("loses nothing", () => {
    const text = "a http://x.example b www.y.example) c\n\nd";
    expect(segments(text).map((part) => part.text).join("")).toBe(text);
  });
});

describe("texts", () => {
  it("folds long ones and many-lined ones", () => {
    expect(isLong("short")).toBe(false);
    expect(isLong("x".repeat(901))).toBe(true);
    expect(isLong("x\n".repeat(17))).toBe(true);
  });

  it("knows the direction of the first letter", () => {
    expect(textDirection("12: مرحبا")).toBe("rtl");
    expect(textDirection("שלום abc")).toBe("rtl");
    expect(textDirection("abc שלום")).toBe("ltr");
    expect(textDirection("👍 12")).toBeUndefined();
  });

  it("writes sizes", () => {
    expect(fileSize(10)).toBe("1 kB");
    expect(fileSize(412_000)).toBe("412 kB");
    expect(fileSize(12_400_000)).toBe("12.4 MB");
  });
});
