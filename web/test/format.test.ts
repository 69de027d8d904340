/**
 * One table of good and bad documents, read here and by Python's tests (tests/unit/build/format): the page and Python
 * refuse the same ones.
 */

import { compileFromFile } from "json-schema-to-typescript";
import { expect, test } from "vitest";
import cases from "../../tests/data/bundle_format/cases.json";
import manifest from "../../tests/data/bundle_format/manifest.json";
import plan from "../../tests/data/bundle_format/plan.json";
import verdicts from "../../tests/data/bundle_format/verdicts.json";
import manifestTypes from "../src/generated/manifest.ts?raw";
import planSchema from "../src/generated/plan.schema.json";
import planTypes from "../src/generated/plan.ts?raw";
import { parseManifest } from "../src/manifest";
import { NAMES, parsePlan, STAGES } from "../src/plan";

type Node = Record<string, unknown>;

const documents = {
  manifest: { document: manifest, parse: parseManifest as (value: unknown) => unknown, verdicts: verdicts.manifest },
  plan: { document: plan, parse: parsePlan as (value: unknown) => unknown, verdicts: verdicts.plan },
};
type Name = keyof typeof documents;

/** Whether the document is sound with `value` at the JSON pointer `at`, or without what is there. */
function sound(name: Name, at: string, value?: unknown): boolean {
  const document: unknown = structuredClone(documents[name].document);
  const path = at.split("/").slice(1);
  const keys = path.map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  const last = keys.pop()!;
  const node = keys.reduce((inner, key) => inner[key] as Node, document as Node);
  if (value !== undefined) node[last] = value;
  else if (Array.isArray(node)) node.splice(Number(last), 1);
  else Reflect.deleteProperty(node, last);
  try {
    documents[name].parse(document);
    return true;
  } catch (error) {
    expect(error).toHaveProperty("kind", "format");
    return false;
  }
}

test.each(Object.keys(documents) as Name[])("every value in every place of %s has Python's verdict", (name) => {
  for (const [at, row] of Object.entries(documents[name].verdicts)) {
    expect({ at, sound: verdicts.values.flatMap((value, i) => (sound(name, at, value) ? [i] : [])) }).toEqual({
      at,
      sound: row.sound,
    });
    expect({ at, optional: sound(name, at) }).toEqual({ at, optional: row.optional });
  }
});

test.each(cases.map((one) => [one.why, one] as const))("%s", (_why, one) => {
  expect(sound(one.document as Name, one.at, "value" in one ? one.value : undefined)).toBe(one.sound);
});

test("the names and stages that every plan has", () => {
  expect(NAMES).toEqual(planSchema.properties.names.required);
  expect(STAGES).toEqual(planSchema.properties.stages.required);
});

// After a change: `npm run generate`.
test.each([
  ["manifest", manifestTypes],
  ["plan", planTypes],
])("the committed types of %s are those of its schema", async (name, types) => {
  expect(await compileFromFile(`src/generated/${name}.schema.json`, { additionalProperties: false })).toBe(types);
});
