import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CurbsideError } from "../errors";
import { diskFiles, loadFromDisk } from "./testing/disk";
import { Vault } from "./vault";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const KEY = Uint8Array.from({ length: 32 }, (_, index) => 7 * index + 3);
const CANARY = "canary-5f1c";

let folder: string;
const open = (key = KEY): Promise<Vault> => Vault.open(diskFiles(folder), key, loadFromDisk);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vault-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("vault", () => {
  it("keeps values of every kind over closing and opening", async () => {
    const vault = await open();
    const blob = Uint8Array.of(0, 1, 255);
    vault.db.run("insert into message (id, mimi_id, conversation, sequence, sender, sender_device, at, delivery, content) select 'm', ?, 'c', ?, 's', 'd', ?, '', ? where 0", blob, 1, 2, blob);
    vault.db.run("insert into conversation (id, mls, kind, title, cursor, created_at) values (?, ?, ?, ?, ?, ?)", "c", blob, "direct", "Tïtle 🙂", 0, 1_790_000_000_123);
    vault.db.run("update conversation set cursor = ? where id = ?", 2 ** 52 + 1, "c");
    vault.close();
    const again = await open();
    expect(again.db.find("select mls, title, cursor, created_at, draft from conversation")).toEqual({
      mls: blob,
      title: "Tïtle 🙂",
      cursor: 2 ** 52 + 1,
      created_at: 1_790_000_000_123,
      draft: "",
    });
    again.close();
  });

  it("opens with no other key", async () => {
    (await open()).close();
    const other = KEY.slice();
    other[31]! ^= 1;
    await expect(open(other)).rejects.toMatchObject({ code: "integrity" });
    (await open()).close();
  });

  it("holds no plaintext in any file, before and after closing", async () => {
    const vault = await open();
    vault.db.run("insert into setting values ('x', ?)", new TextEncoder().encode(CANARY.repeat(500)));
    const scan = (): void => {
      const names = readdirSync(folder);
      expect(names).toContain("vault");
      for (const name of names) {
        const content = readFileSync(join(folder, name));
        expect(content.includes(CANARY), name).toBe(false);
        expect(content.includes("SQLite format"), name).toBe(false);
      }
    };
    scan();
    vault.close();
    scan();
  });

  it("takes back a transaction that throws", async () => {
    const vault = await open();
    const failing = vault.db.transaction(async () => {
      vault.db.run("insert into setting values ('a', ?)", Uint8Array.of(1));
      await Promise.resolve();
      throw new CurbsideError("stale_epoch");
    });
    const next = vault.db.transaction(() => vault.db.all("select name from setting where name = 'a'"));
    await expect(failing).rejects.toMatchObject({ code: "stale_epoch" });
    expect(await next).toEqual([]);
    expect(vault.db.all("select name from setting where name = 'a'")).toEqual([]);
    expect(() => vault.db.run("insert into nowhere values (1)")).toThrow(CurbsideError);
    await vault.db.transaction(() => vault.db.run("insert into setting values ('b', ?)", Uint8Array.of(2)));
    expect(vault.db.all("select name from setting where name = 'b'")).toHaveLength(1);
    vault.close();
    expect(() => vault.db.all("select 1")).toThrow(expect.objectContaining({ code: "vault_locked" }));
  });

  it("has everything that was committed when the program ends without closing", async () => {
    const vault = await open();
    await vault.db.transaction(() => vault.db.run("insert into setting values ('kept', ?)", Uint8Array.of(9)));
    const again = await open();
    expect(again.db.find("select value from setting where name = 'kept'")).toEqual({ value: Uint8Array.of(9) });
    again.close();
  });

  it("has the schema that the Python client has", () => {
    const ours = readFileSync(new URL("./0001_vault.sql", import.meta.url), "utf8");
    const theirs = readFileSync(join(ROOT, "src/curbside/client/schema/0001_vault.sql"), "utf8");
    expect(ours).toBe(theirs);
  });

  it("is readable by Python's SQLite with the same key", async () => {
    const vault = await open();
    vault.db.run("insert into setting values ('greeting', ?)", new TextEncoder().encode("hello from the browser"));
    vault.close();
    const python = [".venv/bin/python", ".venv/Scripts/python.exe"].map((path) => join(ROOT, path)).find(existsSync);
    expect(python, "make setup has made .venv").toBeDefined();
    const hex = Buffer.from(KEY).toString("hex");
    const program = `
import apsw, sys
db = apsw.Connection(sys.argv[1])
db.pragma("cipher", "chacha20")
db.pragma("key", "raw:${hex}")
print(db.execute("select value from setting where name = 'greeting'").get.decode())
print(db.pragma("integrity_check"))`;
    const printed = execFileSync(python!, ["-c", program, join(folder, "vault")], { encoding: "utf8" });
    expect(printed.trim().split("\n")).toEqual(["hello from the browser", "ok"]);
  });
});
