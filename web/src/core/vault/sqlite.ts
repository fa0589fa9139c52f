import { CurbsideError } from "../errors";
import { type SqliteModule, writeText } from "./module";

export type Value = string | number | Uint8Array | null;
export type Row = Record<string, Value>;

const OK = 0;
const FULL = 13;
const ROW = 100;
const DONE = 101;
const INTEGER = 1;
const FLOAT = 2;
const TEXT = 3;
const BLOB = 4;
const OPEN_READWRITE_CREATE = 0x2 | 0x4;
/** SQLite copies what is bound. */
const TRANSIENT = -1;

/** SQLite, one connection. Statements run synchronously; transactions may wait for other work, such as encryption. */
export class Database {
  readonly #module: SqliteModule;
  readonly #handle: number;
  readonly #statements = new Map<string, number>();
  #last: Promise<void> = Promise.resolve();
  #isOpen = true;

  private constructor(module: SqliteModule, handle: number) {
    this.#module = module;
    this.#handle = handle;
  }

  /** Throws `integrity` when the file cannot be opened. */
  static open(module: SqliteModule, file: string, vfs: string): Database {
    const out = module._malloc(4);
    const name = writeText(module, file);
    const vfsName = writeText(module, vfs);
    const status = module._sqlite3_open_v2(name, out, OPEN_READWRITE_CREATE, vfsName);
    const handle = module.getValue(out, "*");
    for (const pointer of [out, name, vfsName]) module._free(pointer);
    if (status !== OK) throw storageError(status);
    return new Database(module, handle);
  }

  /** Runs statements that give no rows and take no parameters. The copy of the text is overwritten: it may hold a key. */
  execute(sql: string | Uint8Array): void {
    this.#requireOpen();
    const bytes = typeof sql === "string" ? new TextEncoder().encode(sql) : sql;
    const pointer = this.#module._malloc(bytes.length + 1);
    this.#module.HEAPU8.set(bytes, pointer);
    this.#module.HEAPU8[pointer + bytes.length] = 0;
    const status = this.#module._sqlite3_exec(this.#handle, pointer, 0, 0, 0);
    this.#module.HEAPU8.fill(0, pointer, pointer + bytes.length);
    this.#module._free(pointer);
    if (status !== OK) throw storageError(status);
  }

  run(sql: string, ...values: Value[]): void {
    this.all(sql, ...values);
  }

  all<T extends object = Row>(sql: string, ...values: Value[]): T[] {
    this.#requireOpen();
    const statement = this.#prepare(sql);
    const rows: T[] = [];
    try {
      for (const [index, value] of values.entries()) this.#bind(statement, index + 1, value);
      const names = this.#columnNames(statement);
      for (;;) {
        const status = this.#module._sqlite3_step(statement);
        if (status === DONE) return rows;
        if (status !== ROW) throw storageError(status);
        rows.push(this.#readRow(statement, names) as T);
      }
    } finally {
      this.#module._sqlite3_reset(statement);
      this.#module._sqlite3_clear_bindings(statement);
    }
  }

  find<T extends object = Row>(sql: string, ...values: Value[]): T | undefined {
    return this.all<T>(sql, ...values)[0];
  }

  /**
   * All of `work` or nothing of it, durable when it returns. One at a time: the next waits. Every write of the client is
   * inside one, so that nothing slips into somebody else's; a transaction inside a transaction would wait for ever.
   */
  async transaction<T>(work: () => T | Promise<T>): Promise<T> {
    const before = this.#last;
    let done = (): void => undefined;
    this.#last = new Promise((resolve) => (done = resolve));
    await before;
    try {
      this.execute("begin immediate");
      const result = await work();
      this.execute("commit");
      return result;
    } catch (error) {
      if (this.#isOpen && this.#module._sqlite3_get_autocommit(this.#handle) === 0) this.execute("rollback");
      throw error;
    } finally {
      done();
    }
  }

  /** Rows changed by the last statement. */
  get changes(): number {
    return this.#module._sqlite3_changes(this.#handle);
  }

  close(): void {
    this.#isOpen = false;
    for (const statement of this.#statements.values()) this.#module._sqlite3_finalize(statement);
    this.#statements.clear();
    this.#module._sqlite3_close_v2(this.#handle);
  }

  #requireOpen(): void {
    if (!this.#isOpen) throw new CurbsideError("vault_locked");
  }

  #prepare(sql: string): number {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const out = this.#module._malloc(4);
    const text = writeText(this.#module, sql);
    const status = this.#module._sqlite3_prepare_v2(this.#handle, text, -1, out, 0);
    const statement = this.#module.getValue(out, "*");
    this.#module._free(out);
    this.#module._free(text);
    if (status !== OK) throw storageError(status);
    this.#statements.set(sql, statement);
    return statement;
  }

  #bind(statement: number, index: number, value: Value): void {
    const status = this.#bindValue(statement, index, value);
    if (status !== OK) throw storageError(status);
  }

  #bindValue(statement: number, index: number, value: Value): number {
    const module = this.#module;
    if (value === null) return module._sqlite3_bind_null(statement, index);
    if (typeof value === "number") {
      if (!Number.isSafeInteger(value)) return module._sqlite3_bind_double(statement, index, value);
      // 64-bit arguments cross into this build as two halves.
      return module._sqlite3_bind_int64(statement, index, value | 0, Math.floor(value / 2 ** 32));
    }
    const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
    const pointer = module._malloc(Math.max(1, bytes.length));
    module.HEAPU8.set(bytes, pointer);
    const bind = typeof value === "string" ? module._sqlite3_bind_text : module._sqlite3_bind_blob;
    const status = bind(statement, index, pointer, bytes.length, TRANSIENT);
    module._free(pointer);
    return status;
  }

  #columnNames(statement: number): string[] {
    const count = this.#module._sqlite3_column_count(statement);
    return Array.from({ length: count }, (_, index) =>
      this.#module.UTF8ToString(this.#module._sqlite3_column_name(statement, index)),
    );
  }

  #readRow(statement: number, names: readonly string[]): Row {
    return Object.fromEntries(names.map((name, index) => [name, this.#readColumn(statement, index)]));
  }

  #readColumn(statement: number, index: number): Value {
    const module = this.#module;
    switch (module._sqlite3_column_type(statement, index)) {
      case INTEGER:
      case FLOAT:
        // Integers of the vault are below 2^53, which a double holds exactly.
        return module._sqlite3_column_double(statement, index);
      case TEXT:
        return new TextDecoder().decode(this.#copyOut(module._sqlite3_column_text(statement, index), statement, index));
      case BLOB:
        return this.#copyOut(module._sqlite3_column_blob(statement, index), statement, index);
      default:
        return null;
    }
  }

  #copyOut(pointer: number, statement: number, index: number): Uint8Array {
    const length = this.#module._sqlite3_column_bytes(statement, index);
    return this.#module.HEAPU8.slice(pointer, pointer + length);
  }
}

function storageError(status: number): CurbsideError {
  const primary = status & 0xff;
  if (primary === FULL) return new CurbsideError("storage_full");
  return new CurbsideError("integrity", `the vault's storage failed (SQLite code ${primary})`);
}
