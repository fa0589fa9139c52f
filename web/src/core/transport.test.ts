import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { Transport } from "./transport";

const NOW = 1_790_000_000_000;

it.each([
  ["an hour slow", 3600, 3600],
  ["an hour fast", -3600, 0],
  ["a year slow, says the server", 365 * 86_400, 86_400],
])("judges certificates by a clock put right by a day at most: %s", async (_, ahead, taken) => {
  const date = new Date(NOW + ahead * 1000).toUTCString();
  const server = createServer((_request, response) => response.writeHead(401, { date }).end("{}"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const transport = new Transport(`http://127.0.0.1:${port}`, async () => "proof", { now: () => NOW });
  await expect(transport.request("GET", "/v1/devices")).rejects.toThrow();
  expect(transport.trustedNow()).toBe(NOW + taken * 1000);
  server.close();
});

it("waits with a request for a sign-in that is under way, and asks without one when it failed", async () => {
  const seen: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const transport = new Transport(`http://127.0.0.1:${port}`, async () => "proof", { now: () => NOW });
  let signedIn = (): void => undefined;
  transport.signingIn = new Promise<void>((resolve) => (signedIn = resolve));
  const asked = transport.call("GET", "/v1/people");
  await transport.call("POST", "/v1/signin/finish", {}, { needs: "key" });
  expect(seen).toEqual([undefined]);
  transport.session = { token: "t" } as NonNullable<typeof transport.session>;
  signedIn();
  await asked;
  expect(seen).toEqual([undefined, "DPoP t"]);
  transport.session = undefined;
  transport.signingIn = Promise.reject(new Error("wrong passphrase"));
  await transport.call("GET", "/v1/people");
  expect(seen).toHaveLength(3);
  server.close();
});
