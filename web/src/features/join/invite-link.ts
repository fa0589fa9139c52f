/** What an invite link looks like from outside; whether it is genuine is checked in the Worker. */

/** `<origin>/#/join/<payload>`: 81 bytes in base64url (docs/trust.md, "Invite link"). */
const INVITE = /^https?:\/\/[^\s#]+#\/join\/[A-Za-z0-9_-]{108}$/;

export function isInviteLink(text: string): boolean {
  return INVITE.test(text.trim());
}
