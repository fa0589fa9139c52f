// Against the server's own code in a Python process: the two libraries must agree on every byte.

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { type Interface, createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeBase64url, encodeBase64url } from "../ids";
import { type LoggedIn, finishLogin, finishRegistration, startLogin, startRegistration } from "./opaque";
import { SecretBytes } from "./secret";

const ROOT = new URL("../../../../", import.meta.url);
const VENV = fileURLToPath(new URL(".venv/bin/python", ROOT));
const PYTHON = process.env["CURBSIDE_PYTHON"] ?? (existsSync(VENV) ? VENV : "python3");
const PASSPHRASE = "Ångström and the ﬁne sea";
const USER = "dXNlcnVzZXJ1c2VydXNlcg";

let server: ChildProcessWithoutNullStreams;
let lines: AsyncIterator<string>;
let reader: Interface;

async function ask(question: Record<string, string>): Promise<Record<string, string>> {
  server.stdin.write(`${JSON.stringify(question)}\n`);
  const { value, done } = await lines.next();
  if (done) throw new Error("the Python server ended");
  return JSON.parse(value) as Record<string, string>;
}

async function register(user_id: string, passphrase: string): Promise<SecretBytes> {
  const started = await startRegistration(passphrase);
  const answer = await ask({ step: "register", user_id, message: encodeBase64url(started.message) });
  const done = await finishRegistration(passphrase, started.state, decodeBase64url(answer["response"] ?? ""));
  expect(await ask({ step: "record", user_id, message: encodeBase64url(done.record) })).toEqual({});
  return done.exportKey;
}

async function signIn(user_id: string, passphrase: string): Promise<LoggedIn> {
  const started = await startLogin(passphrase);
  const answer = await ask({ step: "login", user_id, message: encodeBase64url(started.message) });
  return finishLogin(passphrase, started.state, decodeBase64url(answer["response"] ?? ""));
}

beforeAll(() => {
  server = spawn(PYTHON, [fileURLToPath(new URL("tests/interop/opaque_server.py", ROOT))]);
  server.stderr.pipe(process.stderr);
  reader = createInterface({ input: server.stdout });
  lines = reader[Symbol.asyncIterator]();
});

afterAll(() => {
  reader.close();
  server.kill();
});

describe("OPAQUE with the Python server", () => {
  test("registers, signs in, and both have one session key", async () => {
    const exportKey = await register(USER, PASSPHRASE);
    const done = await signIn(USER, PASSPHRASE);
    const { session_key } = await ask({ step: "finish", message: encodeBase64url(done.finalization) });
    expect(new SecretBytes(decodeBase64url(session_key ?? "")).isSame(done.sessionKey)).toBe(true);
    expect(done.exportKey.isSame(exportKey)).toBe(true);
    expect(exportKey).toHaveLength(64);
  });

  test("another spelling of the same text signs in", async () => {
    await register(USER, PASSPHRASE);
    const done = await signIn(USER, PASSPHRASE.normalize("NFKD"));
    expect(await ask({ step: "finish", message: encodeBase64url(done.finalization) })).toHaveProperty("session_key");
  });

  test("a wrong passphrase and an unknown user look alike", async () => {
    await register(USER, PASSPHRASE);
    await expect(signIn(USER, `${PASSPHRASE}!`)).rejects.toMatchObject({ code: "wrong_passphrase" });
    await expect(signIn("dW5rbm93bnVua25vd251bg", PASSPHRASE)).rejects.toMatchObject({ code: "wrong_passphrase" });
  });

  test("a finalization of another sign-in is refused by the server", async () => {
    await register(USER, PASSPHRASE);
    const first = await signIn(USER, PASSPHRASE);
    await signIn(USER, PASSPHRASE);
    const answer = await ask({ step: "finish", message: encodeBase64url(first.finalization) });
    expect(answer).toEqual({ error: "wrong_passphrase" });
  });

  test("garbage from a server is refused with a typed error", async () => {
    const registration = await startRegistration(PASSPHRASE);
    const login = await startLogin(PASSPHRASE);
    for (const garbage of [new Uint8Array(), new Uint8Array(64), new Uint8Array(320).fill(7)]) {
      const registered = finishRegistration(PASSPHRASE, registration.state, garbage);
      await expect(registered).rejects.toMatchObject({ code: "malformed" });
      const loggedIn = finishLogin(PASSPHRASE, login.state, garbage);
      await expect(loggedIn).rejects.toMatchObject({ code: "wrong_passphrase" });
    }
  });
});
