// Invite links (docs/trust.md): `<origin>/#/join/<payload>`. Twin of src/curbside/wire/invite_link.py.
// payload = base64url of 0x01 ‖ invite id (16) ‖ enrolment seed (32) ‖ authority public key (32).

import { concat } from "../crypto/bytes";
import { SecretBytes } from "../crypto/secret";
import { CurbsideError, malformed } from "../errors";
import { decodeBase64url, decodeId, encodeBase64url, encodeId } from "../ids";

const VERSION = 1;
const PAYLOAD_BYTES = 81;
const LINK_CHARS = 512;
const HOST = "[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?";
const ORIGIN = `https://${HOST}(?::[0-9]{1,5})?|http://(?:localhost|127\\.0\\.0\\.1)(?::[0-9]{1,5})?`;
const LINK = new RegExp(`^(${ORIGIN})/#/join/([A-Za-z0-9_-]{108})$`);

/** origin: of the server, without a slash at the end; https, or http on this machine. authorityKey: Ed25519. */
export interface InviteLink {
  readonly origin: string;
  readonly inviteId: string;
  readonly enrolmentSeed: SecretBytes;
  readonly authorityKey: Uint8Array;
}

/** The link's text; it is a secret until it was used. Throws `internal` when a part has no form in a link. */
export function encodeInviteLink(link: InviteLink): string {
  if (link.enrolmentSeed.length !== 32 || link.authorityKey.length !== 32)
    throw new CurbsideError("internal", "keys in an invite link have 32 bytes");
  const payload = concat(
    Uint8Array.of(VERSION),
    decodeId(link.inviteId),
    link.enrolmentSeed.reveal(),
    link.authorityKey,
  );
  const text = `${link.origin}/#/join/${encodeBase64url(payload)}`;
  if (text.length > LINK_CHARS || !LINK.test(text))
    throw new CurbsideError("internal", "an origin that has no place in an invite link");
  return text;
}

/** Reads a link; spaces around it are ignored. Throws `malformed`. */
export function parseInviteLink(text: string): InviteLink {
  const found = text.length <= LINK_CHARS ? LINK.exec(text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "")) : null;
  const [, origin, encoded] = found ?? [];
  if (origin === undefined || encoded === undefined) throw malformed("not an invite link");
  const payload = decodeBase64url(encoded);
  if (payload.length !== PAYLOAD_BYTES || payload[0] !== VERSION) throw malformed("an invite link of another version");
  return {
    origin,
    inviteId: encodeId(payload.subarray(1, 17)),
    enrolmentSeed: new SecretBytes(payload.subarray(17, 49)),
    authorityKey: payload.slice(49),
  };
}
