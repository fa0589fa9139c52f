/** Touch gestures on a bubble: swipe towards its end to reply, hold for the menu. Both have a tap way as well. */

const FIRE_PX = 64;
const MOST_PX = 84;
const START_PX = 12;
const HOLD_MS = 450;

interface Gestures {
  onswipe: () => void;
  onhold: () => void;
  disabled?: boolean;
}

/** How far the finger went towards the end of the line: mirrored in right-to-left text. */
export function forwardDistance(dx: number, rightToLeft: boolean): number {
  return Math.max(0, Math.min(MOST_PX, rightToLeft ? -dx : dx));
}

export function bubbleGestures(node: HTMLElement, given: Gestures): { update(next: Gestures): void; destroy(): void } {
  let gestures = given;
  let start: { x: number; y: number; id: number } | undefined;
  let swiping = false;
  let forward = 0;
  let hold = 0;
  const rightToLeft = (): boolean => getComputedStyle(node).direction === "rtl";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function shift(distance: number): void {
    if (calm.matches) return;
    node.style.setProperty("--swipe", `${rightToLeft() ? -distance : distance}px`);
    node.classList.toggle("armed", distance >= FIRE_PX);
  }

  function reset(): void {
    clearTimeout(hold);
    start = undefined;
    swiping = false;
    forward = 0;
    shift(0);
    node.classList.remove("swiping");
  }

  function down(event: PointerEvent): void {
    if (event.pointerType === "mouse" || gestures.disabled) return;
    start = { x: event.clientX, y: event.clientY, id: event.pointerId };
    hold = window.setTimeout(() => {
      reset();
      navigator.vibrate?.(10);
      gestures.onhold();
    }, HOLD_MS);
  }

  function move(event: PointerEvent): void {
    if (!start || event.pointerId !== start.id) return;
    const dx = event.clientX - start.x;
    const dy = event.clientY - start.y;
    if (Math.hypot(dx, dy) > START_PX) clearTimeout(hold);
    if (!swiping && Math.abs(dx) > START_PX && Math.abs(dx) > Math.abs(dy) * 1.5) {
      swiping = true;
      node.classList.add("swiping");
      node.setPointerCapture(event.pointerId);
    }
    if (!swiping) return;
    const before = forward;
    forward = forwardDistance(dx, rightToLeft());
    if (before < FIRE_PX && forward >= FIRE_PX) navigator.vibrate?.(10);
    shift(forward);
  }

  function up(): void {
    const fire = swiping && forward >= FIRE_PX;
    reset();
    if (fire) gestures.onswipe();
  }

  function menu(event: Event): void {
    if (window.getSelection()?.toString()) return;
    event.preventDefault();
    reset();
    gestures.onhold();
  }

  const listeners: [string, (event: never) => void][] = [
    ["pointerdown", down],
    ["pointermove", move],
    ["pointerup", up],
    ["pointercancel", reset],
    ["contextmenu", menu],
  ];
  for (const [name, listener] of listeners) node.addEventListener(name, listener as EventListener);
  return {
    update(next) {
      gestures = next;
    },
    destroy() {
      reset();
      for (const [name, listener] of listeners) node.removeEventListener(name, listener as EventListener);
    },
  };
}
