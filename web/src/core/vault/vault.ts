import { CurbsideError } from "../errors";
import schema from "./0001_vault.sql?raw";
import type { VaultFiles } from "./files";
import { type ModuleLoader, type SqliteModule, loadModule, writeText } from "./module";
import { VaultRows } from "./rows";
import { Database } from "./sqlite";
import { VaultVfs } from "./vfs";

/** With `vault.wraps` beside it, as the Python client names them. */
export const VAULT_FILE = "vault";
const VFS_NAME = "curbside";
const SCHEMA_VERSION = "1";
const KEY_BYTES = 32;
const HEX = new TextEncoder().encode("0123456789abcdef");

/** The encrypted database of this device: SQLite3 Multiple Ciphers, chacha20, raw key, WAL, synchronous=FULL. */
export class Vault {
  readonly db: Database;
  readonly rows: VaultRows;
  readonly #vfs: VaultVfs;
  readonly #module: SqliteModule;

  private constructor(db: Database, vfs: VaultVfs, module: SqliteModule) {
    this.db = db;
    this.rows = new VaultRows(db);
    this.#vfs = vfs;
    this.#module = module;
  }

  /**
   * Opens the vault, and makes it when there is none. `key`: 32 random bytes; the caller wipes them afterwards.
   * Throws `integrity` for another key or a damaged file.
   */
  static async open(files: VaultFiles, key: Uint8Array, load: ModuleLoader = loadModule): Promise<Vault> {
    if (key.length !== KEY_BYTES) throw new CurbsideError("internal", "a vault key has 32 bytes");
    const module = await load();
    const vfs = await VaultVfs.create(VFS_NAME, module, files, VAULT_FILE);
    try {
      module.vfs_register(vfs, false);
      const name = writeText(module, VFS_NAME);
      module._sqlite3mc_vfs_create(name, 0);
      module._free(name);
      const db = Database.open(module, VAULT_FILE, `multipleciphers-${VFS_NAME}`);
      await prepare(db, key);
      return new Vault(db, vfs, module);
    } catch (error) {
      vfs.closeFiles();
      throw error;
    }
  }

  /** See `Database.transaction`; `rows` for symmetry with the Python client. */
  transaction<T>(work: (rows: VaultRows) => T | Promise<T>): Promise<T> {
    return this.db.transaction(() => work(this.rows));
  }

  /** Closes the files and overwrites the memory that held keys and pages. Nothing of this object works afterwards. */
  close(): void {
    this.db.close();
    this.#vfs.closeFiles();
    this.#module.HEAPU8.fill(0);
  }
}

async function prepare(db: Database, key: Uint8Array): Promise<void> {
  db.execute("pragma cipher='chacha20'");
  const statement = keyStatement(key);
  db.execute(statement);
  statement.fill(0);
  // Exclusive before the first access: then the WAL needs no shared memory, which this platform does not have.
  db.execute("pragma locking_mode=exclusive");
  db.execute("pragma temp_store=memory");
  db.all("pragma journal_mode=wal");
  db.execute("pragma synchronous=full; pragma foreign_keys=on; pragma secure_delete=on; pragma cache_size=-16384");
  const found = db.find<{ n: number }>("select count(*) as n from sqlite_schema where name = 'setting'");
  if (found?.n === 0)
    await db.transaction(() => {
      db.execute(schema);
      db.run("insert into setting values ('schema', ?)", new TextEncoder().encode(SCHEMA_VERSION));
    });
  const version = db.find<{ value: Uint8Array }>("select value from setting where name = 'schema'");
  if (version === undefined || new TextDecoder().decode(version.value) !== SCHEMA_VERSION)
    throw new CurbsideError("integrity", "the vault was written by a newer version of the app");
}

/** `pragma key="raw:<hex>"` as bytes that can be overwritten; a string could not. */
function keyStatement(key: Uint8Array): Uint8Array {
  const [head, tail] = [new TextEncoder().encode('pragma key="raw:'), new TextEncoder().encode('"')];
  const statement = new Uint8Array(head.length + 2 * KEY_BYTES + tail.length);
  statement.set(head);
  for (const [index, byte] of key.entries()) {
    statement[head.length + 2 * index] = HEX[byte >> 4]!;
    statement[head.length + 2 * index + 1] = HEX[byte & 15]!;
  }
  statement.set(tail, head.length + 2 * KEY_BYTES);
  return statement;
}
