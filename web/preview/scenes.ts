/** The states of the page that are worth looking at. */

const scenes = [
  "welcome",
  "invite",
  "invite-expired",
  "joining",
  "locked",
  "list",
  "empty",
  "offline",
  "long",
  "other-tab",
  "unsupported",
] as const;

export type Scene = (typeof scenes)[number];

export function isScene(name: string): name is Scene {
  return (scenes as readonly string[]).includes(name);
}
