import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The service worker is an entry of its own: its address must stay the same over releases. */
const input: Record<string, string> = { app: here("./index.html") };
if (existsSync(here("./src/sw.ts"))) input["sw"] = here("./src/sw.ts");

export default defineConfig({
  plugins: [svelte({ configFile: false })],
  base: "/",
  worker: { format: "es" },
  build: {
    target: "es2023",
    outDir: "dist",
    emptyOutDir: true,
    sourcemap: false,
    // Nothing inline: the page is served with a Content-Security-Policy without 'unsafe-inline' or data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssCodeSplit: true,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1024,
    manifest: true,
    rolldownOptions: {
      input,
      output: {
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  // wa-sqlite finds its wasm file through import.meta.url, which pre-bundling would break.
  optimizeDeps: { exclude: ["@journeyapps/wa-sqlite"] },
  test: {
    include: ["src/**/*.test.ts", "tests/**/*.test.ts"],
    environment: "node",
    passWithNoTests: false,
    testTimeout: 30_000,
  },
});
