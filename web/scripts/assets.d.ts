// What Vite makes of imports with a suffix, for tsconfig.core.json (vite/client would bring the DOM's types along).
declare module "*?url" {
  const address: string;
  export default address;
}
declare module "*?raw" {
  const text: string;
  export default text;
}
interface ImportMeta {
  readonly env: { readonly DEV: boolean; readonly PROD: boolean };
}
