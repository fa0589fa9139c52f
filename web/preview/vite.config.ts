// Preview of the page over a pretend core, for design work and screenshots. Never part of what ships.

import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: here(".."),
  plugins: [svelte({ configFile: false })],
  server: { open: "/preview/index.html?scene=list" },
  build: {
    target: "es2023",
    outDir: process.env["CURBSIDE_PREVIEW_OUT"] ?? here("../node_modules/.preview"),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: { preview: here("./index.html") } },
  },
});
