import { defineConfig } from "vite";

/** The page that lends a browser's GPU to `wgtune tune --device browser`: not part of a bundle, so in its own folder. */
export default defineConfig({
  root: "lender",
  base: "./",
  build: { outDir: "../lender-app", emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false } },
});
