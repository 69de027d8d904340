import { defineConfig } from "vite";

/** The page that lends a browser's GPU to `wgtune tune --device browser`: no part of a bundle, so in a folder of its own. */
export default defineConfig({
  root: "lender",
  base: "./",
  build: { outDir: "../lender-app", emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false } },
});
