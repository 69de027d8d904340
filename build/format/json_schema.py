"""Writes the JSON Schemas of manifest.json and plan.json, from which the page's TypeScript types are generated.

``python -m wgtune.build.format.json_schema FOLDER`` writes them; `npm run generate` in web/ then makes the types.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from . import manifest, plan


class _Draft07(GenerateJsonSchema):
    """JSON Schema of draft 7, which the TypeScript generator reads, without titles of fields."""

    schema_dialect = "http://json-schema.org/draft-07/schema#"

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """Draft 7 lists a tuple's elements under ``items``."""
        made = super().tuple_schema(schema)
        if "prefixItems" in made:
            made["items"] = made.pop("prefixItems")
            made["additionalItems"] = False
        return made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """No keys but those that match the pattern."""
        made = super().dict_schema(schema)
        return {**made, "additionalProperties": False} if "patternProperties" in made else made

    def field_title_should_be_set(self, schema: Any) -> bool:
        """The field's name says as much."""
        return False


def json_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a document's type."""
    return {"$schema": _Draft07.schema_dialect, **adapter.json_schema(schema_generator=_Draft07)}


def schema_files() -> dict[str, str]:
    """Return the text of each schema file, by its name."""
    documents: dict[str, TypeAdapter[Any]] = {
        "manifest.schema.json": manifest.ADAPTER,
        "plan.schema.json": plan.ADAPTER,
    }
    return {name: json.dumps(json_schema(adapter), indent=2) + "\n" for name, adapter in documents.items()}


def main(folder: str) -> None:
    """Write the schema files into ``folder``."""
    for name, text in schema_files().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
