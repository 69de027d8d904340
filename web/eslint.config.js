import eslint from "@eslint/js";
import { defineConfig, globalIgnores } from "eslint/config";
import tseslint from "typescript-eslint";

export default defineConfig(
  // test/library is checked against built declarations, by build:lib.
  globalIgnores(["app/", "lender-app/", "lib/", "src/generated/", "test/library/"]),
  eslint.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // The compiler option noUncheckedIndexedAccess makes every index "maybe undefined"; `!` marks one that is in range.
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
  {
    // Fakes return promises as the real thing does, without waiting for anything.
    files: ["test/fakes.ts"],
    rules: { "@typescript-eslint/require-await": "off" },
  },
  {
    // These tests damage parsed JSON on purpose, and parsed JSON has no type.
    files: ["test/manifest.test.ts", "test/plan.test.ts"],
    rules: {
      "@typescript-eslint/no-explicit-any": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-return": "off",
    },
  },
);
