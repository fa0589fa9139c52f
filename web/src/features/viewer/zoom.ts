/** Zoom and pan of a picture in a frame. Pure: the component feeds it fingers and draws what comes out. */

export interface View {
  scale: number;
  x: number;
  y: number;
}

export const WHOLE: View = { scale: 1, x: 0, y: 0 };
export const CLOSEST = 6;

export interface Size {
  width: number;
  height: number;
}

/** Keeps the picture over the frame: no further out than whole, no further aside than its edge. */
export function bound(view: View, frame: Size): View {
  const scale = Math.max(1, Math.min(CLOSEST, view.scale));
  const mostX = (frame.width * (scale - 1)) / 2;
  const mostY = (frame.height * (scale - 1)) / 2;
  return { scale, x: Math.max(-mostX, Math.min(mostX, view.x)) + 0, y: Math.max(-mostY, Math.min(mostY, view.y)) + 0 };
}

/** Zooms to `scale` so that the point (measured from the frame's middle) stays under the finger. */
export function zoomAt(view: View, scale: number, point: { x: number; y: number }, frame: Size): View {
  const next = Math.max(1, Math.min(CLOSEST, scale));
  const ratio = next / view.scale;
  return bound({ scale: next, x: point.x - (point.x - view.x) * ratio, y: point.y - (point.y - view.y) * ratio }, frame);
}
