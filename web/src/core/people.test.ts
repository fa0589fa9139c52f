import { describe, expect, it } from "vitest";
import { isMatch } from "./people";

describe("who is found", () => {
  const person = { name: "Zoë Müller-Ødegård", role: "physician" };
  it.each(["", "zoe", "MULLER", "müller zoë", "phys", "zoe physician", " "])("%o finds her", (query) => {
    expect(isMatch(person, query)).toBe(true);
  });
  it.each(["zoe nurse", "anna", "zoex"])("%o does not", (query) => {
    expect(isMatch(person, query)).toBe(false);
  });
});
