/** What is used of the Emscripten module of `@journeyapps/wa-sqlite`'s build with SQLite3 Multiple Ciphers. */
export interface SqliteModule {
  HEAPU8: Uint8Array;
  _malloc(size: number): number;
  _free(pointer: number): void;
  getValue(pointer: number, type: "*" | "i32"): number;
  UTF8ToString(pointer: number): string;
  vfs_register(vfs: object, makeDefault: boolean): number;
  _sqlite3mc_vfs_create(name: number, makeDefault: number): number;
  _sqlite3_open_v2(name: number, out: number, flags: number, vfs: number): number;
  _sqlite3_close_v2(db: number): number;
  _sqlite3_exec(db: number, sql: number, callback: number, argument: number, error: number): number;
  _sqlite3_changes(db: number): number;
  _sqlite3_get_autocommit(db: number): number;
  _sqlite3_prepare_v2(db: number, sql: number, length: number, out: number, tail: number): number;
  _sqlite3_finalize(statement: number): number;
  _sqlite3_reset(statement: number): number;
  _sqlite3_clear_bindings(statement: number): number;
  _sqlite3_step(statement: number): number;
  _sqlite3_bind_null(statement: number, index: number): number;
  _sqlite3_bind_int64(statement: number, index: number, low: number, high: number): number;
  _sqlite3_bind_double(statement: number, index: number, value: number): number;
  _sqlite3_bind_text(statement: number, index: number, pointer: number, length: number, free: number): number;
  _sqlite3_bind_blob(statement: number, index: number, pointer: number, length: number, free: number): number;
  _sqlite3_column_count(statement: number): number;
  _sqlite3_column_name(statement: number, index: number): number;
  _sqlite3_column_type(statement: number, index: number): number;
  _sqlite3_column_double(statement: number, index: number): number;
  _sqlite3_column_text(statement: number, index: number): number;
  _sqlite3_column_blob(statement: number, index: number): number;
  _sqlite3_column_bytes(statement: number, index: number): number;
}

/** How the WebAssembly gets here: fetched in a browser, read from disk in tests. */
export type ModuleLoader = () => Promise<SqliteModule>;

/** Loaded only when a vault is opened: it is by far the largest part of the client. */
export const loadModule: ModuleLoader = async () => {
  const [{ default: factory }, { default: wasm }] = await Promise.all([
    import("@journeyapps/wa-sqlite/dist/mc-wa-sqlite.mjs"),
    import("@journeyapps/wa-sqlite/dist/mc-wa-sqlite.wasm?url"),
  ]);
  return (await factory({ locateFile: () => wasm })) as SqliteModule;
};

/** A zero-terminated copy in the module's memory; the caller frees it. */
export function writeText(module: SqliteModule, text: string): number {
  const bytes = new TextEncoder().encode(text);
  const pointer = module._malloc(bytes.length + 1);
  module.HEAPU8.set(bytes, pointer);
  module.HEAPU8[pointer + bytes.length] = 0;
  return pointer;
}
