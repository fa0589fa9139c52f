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
