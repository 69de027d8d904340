import { defineConfig } from "vitest/config";

/**
 * Two entries: the page, and the runtime alone as `assets/wgtune.js`, for other pages to import; its name has no hash.
 */
export default defineConfig({
  // Relative, since a static host may serve a bundle from any path.
  base: "./",
  build: {
    outDir: "app",
    target: "es2022",
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: { page: "index.html", wgtune: "src/index.ts" },
      preserveEntrySignatures: "strict",
      output: {
        entryFileNames: (chunk) => (chunk.name === "wgtune" ? "assets/wgtune.js" : "assets/[name]-[hash].js"),
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  worker: { format: "es" },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
