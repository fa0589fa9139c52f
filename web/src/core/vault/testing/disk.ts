import { closeSync, fsyncSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { SyncFile, VaultFiles } from "../files";
import type { ModuleLoader, SqliteModule } from "../module";

/** A vault's files in a folder, for tests outside a browser; real files, real SQLite. */
export function diskFiles(folder: string): VaultFiles {
  return {
    open: async (name) => openFile(join(folder, name)),
    read: async (name) => {
      try {
        return new Uint8Array(readFileSync(join(folder, name)));
      } catch {
        return undefined;
      }
    },
    replace: async (name, content) => {
      writeFileSync(join(folder, `${name}.new`), content);
      renameSync(join(folder, `${name}.new`), join(folder, name));
    },
    remove: async (name) => rmSync(join(folder, name), { force: true }),
  };
}

function openFile(path: string): SyncFile {
  const handle = openSync(path, "a+");
  closeSync(handle);
  const file = openSync(path, "r+");
  return {
    read: (buffer, { at }) => readSync(file, buffer, 0, buffer.length, at),
    write: (buffer, { at }) => writeSync(file, buffer, 0, buffer.length, at),
    truncate: (size) => ftruncateSync(file, size),
    flush: () => fsyncSync(file),
    getSize: () => fstatSync(file).size,
    close: () => closeSync(file),
  };
}

export const loadFromDisk: ModuleLoader = async () => {
  const wasm = createRequire(import.meta.url).resolve("@journeyapps/wa-sqlite/dist/mc-wa-sqlite.wasm");
  const { default: factory } = await import("@journeyapps/wa-sqlite/dist/mc-wa-sqlite.mjs");
  return (await factory({ wasmBinary: new Uint8Array(readFileSync(wasm)) })) as SqliteModule;
};
