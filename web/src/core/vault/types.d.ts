declare module "@journeyapps/wa-sqlite/dist/mc-wa-sqlite.mjs" {
  const factory: (options: { locateFile?: (path: string) => string; wasmBinary?: Uint8Array }) => Promise<object>;
  export default factory;
}

declare module "@journeyapps/wa-sqlite/src/FacadeVFS.js" {
  export class FacadeVFS {
    constructor(name: string, module: object);
    readonly name: string;
    jOpen(name: string | null, id: number, flags: number, outFlags: DataView): number;
    jClose(id: number): number;
    jDelete(name: string, syncDirectory: number): number;
    jAccess(name: string, flags: number, result: DataView): number;
    jRead(id: number, buffer: Uint8Array<ArrayBuffer>, offset: number): number;
    jWrite(id: number, buffer: Uint8Array<ArrayBuffer>, offset: number): number;
    jTruncate(id: number, size: number): number;
    jSync(id: number, flags: number): number;
    jFileSize(id: number, size: DataView): number;
  }
}

declare module "@journeyapps/wa-sqlite/src/sqlite-constants.js" {
  export const SQLITE_OK: number;
  export const SQLITE_CANTOPEN: number;
  export const SQLITE_IOERR: number;
  export const SQLITE_IOERR_SHORT_READ: number;
}
