import { describe, expect, it } from "vitest";
import { bound, CLOSEST, WHOLE, zoomAt } from "./zoom";

const frame = { width: 400, height: 800 };

describe("zoom", () => {
  it("keeps the point under the finger where it is", () => {
    const point = { x: 100, y: -150 };
    const view = zoomAt(WHOLE, 2.5, point, frame);
    const onPicture = { x: (point.x - view.x) / view.scale, y: (point.y - view.y) / view.scale };
    expect(onPicture.x).toBeCloseTo(100);
    expect(onPicture.y).toBeCloseTo(-150);
  });

  it("never shows less than the whole, never more than the closest, never past the edge", () => {
    expect(zoomAt(WHOLE, 0.2, { x: 50, y: 50 }, frame)).toEqual(WHOLE);
    expect(zoomAt(WHOLE, 99, { x: 0, y: 0 }, frame).scale).toBe(CLOSEST);
    expect(bound({ scale: 2, x: 9_999, y: -9_999 }, frame)).toEqual({ scale: 2, x: 200, y: -400 });
    expect(bound({ scale: 1, x: 30, y: 30 }, frame)).toEqual(WHOLE);
  });
});
