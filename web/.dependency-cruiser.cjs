// Who may import whom in the web client. ARCHITECTURE.md says why; scripts/deps.mjs runs it and its tests seed violations.
//
//   features, App ──► state ──► bridge ──► core (in a Worker)         ui stands alone

const CRYPTO_LIBRARIES =
  "node_modules/(ts-mls|@hpke/[^/]+|@noble/[^/]+|hash-wasm|@serenity-kit/opaque)(/|$)";
const TESTS = "(\\.test\\.ts$|^tests/|/testing/)";
const PAGE = "^src/(features|state|ui|App|main)";

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: "no-cycles",
      comment: "A cycle cannot be understood or tested in parts.",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "ui-stands-alone",
      comment: "Components know nothing of messages, people or keys; they get everything as props.",
      severity: "error",
      from: { path: "^src/ui/", pathNot: TESTS },
      to: { path: "^src/(state|bridge|core|features)(/|\\.)" },
    },
    {
      name: "page-reaches-core-only-through-bridge",
      comment: "Keys and plaintext stores live in the Worker; the bridge is the only door.",
      severity: "error",
      from: { path: PAGE, pathNot: TESTS },
      to: { path: "^src/core/" },
    },
    {
      name: "state-below-features",
      comment: "State does not know who shows it.",
      severity: "error",
      from: { path: "^src/(state|bridge|core)/", pathNot: TESTS },
      to: { path: "^src/(features|ui|App|main)" },
    },
    {
      name: "core-below-bridge",
      comment: "The Worker's code does not know the page; only its entry speaks the bridge's messages.",
      severity: "error",
      from: { path: "^src/core/", pathNot: TESTS },
      to: { path: "^src/state/" },
    },
    {
      name: "features-apart",
      comment: "A feature can be deleted without another one noticing; what two need moves to state or ui.",
      severity: "error",
      from: { path: "^src/features/([^/]+)/", pathNot: TESTS },
      to: { path: "^src/features/([^/]+)/", pathNot: "^src/features/$1/" },
    },
    {
      name: "crypto-fence",
      comment: "Only core/crypto and core/mls touch cryptographic libraries.",
      severity: "error",
      from: { path: "^src/", pathNot: ["^src/core/(crypto|mls)(/|\\.ts$)", TESTS] },
      to: { path: CRYPTO_LIBRARIES },
    },
    {
      name: "sql-fence",
      comment: "Only the vault speaks to SQLite.",
      severity: "error",
      from: { path: "^src/", pathNot: ["^src/core/vault(/|\\.|-|_)", TESTS] },
      to: { path: "node_modules/@journeyapps/wa-sqlite" },
    },
    {
      name: "no-node-in-the-client",
      comment: "Node's modules do not exist in a browser.",
      severity: "error",
      from: { path: "^src/", pathNot: TESTS },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "no-tools-in-the-client",
      comment: "What ships is a dependency, never a development tool.",
      severity: "error",
      from: { path: "^src/", pathNot: TESTS },
      to: { dependencyTypes: ["npm-dev"], pathNot: "node_modules/(@types|vite)/" },
    },
    {
      name: "resolvable",
      comment: "An import that cannot be resolved escapes every other rule.",
      severity: "error",
      from: { path: "^src/" },
      to: { couldNotResolve: true, pathNot: "(\\?|^virtual:)" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["svelte", "browser", "import", "default"],
      extensions: [".ts", ".mjs", ".js", ".svelte", ".json"],
    },
  },
};
