// OPAQUE (RFC 9807), the client's side: sign-in in which the server never learns the passphrase. Twin of the client
// half of src/curbside/crypto/opaque.py. The library and its wasm (157 kB gzip) are loaded on first use.
//
//   startRegistration → server → finishRegistration → server        startLogin → server → finishLogin → server

import { CurbsideError, malformed } from "../errors";
import { decodeBase64url, encodeBase64url } from "../ids";
import { type Bytes, toText } from "./bytes";
import { preparePassphrase } from "./passphrase";
import { SecretBytes } from "./secret";

/** What the server's library does too; both must agree (docs/trust.md). */
const KEY_STRETCHING = { "argon2id-custom": { memory: 19_456, iterations: 2, parallelism: 1 } } as const;

/** message: to the server. state: to the client's own second step; it is a secret. */
export interface Started {
  readonly message: Bytes;
  readonly state: SecretBytes;
}

/** record: to the server, 192 bytes. exportKey: 64 bytes that only this passphrase gives again. */
export interface Registered {
  readonly record: Bytes;
  readonly exportKey: SecretBytes;
}

/** finalization: to the server, 64 bytes. sessionKey: shared with the server. exportKey: as at registration. */
export interface LoggedIn {
  readonly finalization: Bytes;
  readonly sessionKey: SecretBytes;
  readonly exportKey: SecretBytes;
}

async function load() {
  const opaque = await import("@serenity-kit/opaque");
  await opaque.ready;
  return opaque.client;
}

/** A client's first step to register a passphrase. */
export async function startRegistration(passphrase: string): Promise<Started> {
  const started = (await load()).startRegistration({ password: passwordOf(passphrase) });
  return { message: decodeBase64url(started.registrationRequest), state: secretOf(started.clientRegistrationState) };
}

/** A client's second step to register; runs argon2id. Throws `malformed`. */
export async function finishRegistration(
  passphrase: string,
  state: SecretBytes,
  response: Uint8Array,
): Promise<Registered> {
  const client = await load();
  const done = attempt(() =>
    client.finishRegistration({
      password: passwordOf(passphrase),
      clientRegistrationState: encodeBase64url(state.reveal()),
      registrationResponse: encodeBase64url(response),
      keyStretching: KEY_STRETCHING,
    }),
  );
  if (done === undefined) throw malformed("not an OPAQUE registration response");
  return { record: decodeBase64url(done.registrationRecord), exportKey: secretOf(done.exportKey) };
}

/** A client's first step to sign in. */
export async function startLogin(passphrase: string): Promise<Started> {
  const started = (await load()).startLogin({ password: passwordOf(passphrase) });
  return { message: decodeBase64url(started.startLoginRequest), state: secretOf(started.clientLoginState) };
}

/** A client's second step to sign in; runs argon2id. Throws `wrong_passphrase`, also for another server's answer. */
export async function finishLogin(passphrase: string, state: SecretBytes, response: Uint8Array): Promise<LoggedIn> {
  const client = await load();
  const done = attempt(() =>
    client.finishLogin({
      password: passwordOf(passphrase),
      clientLoginState: encodeBase64url(state.reveal()),
      loginResponse: encodeBase64url(response),
      keyStretching: KEY_STRETCHING,
    }),
  );
  if (done === undefined) throw new CurbsideError("wrong_passphrase");
  return {
    finalization: decodeBase64url(done.finishLoginRequest),
    sessionKey: secretOf(done.sessionKey),
    exportKey: secretOf(done.exportKey),
  };
}

/** The library says what is wrong with a message by throwing a text; nobody needs to know. */
function attempt<T>(step: () => T | undefined): T | undefined {
  try {
    return step();
  } catch {
    return undefined;
  }
}

/** The library takes text and encodes it as UTF-8. */
function passwordOf(passphrase: string): string {
  const prepared = preparePassphrase(passphrase);
  try {
    return toText(prepared.reveal());
  } finally {
    prepared.wipe();
  }
}

function secretOf(text: string): SecretBytes {
  const bytes = decodeBase64url(text);
  const secret = new SecretBytes(bytes);
  bytes.fill(0);
  return secret;
}
