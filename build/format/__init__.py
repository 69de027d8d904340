"""The bundle format: the types of its files, reading and checking them.

Used by `bundle`, which writes bundles, and `runtime`, which runs them. Imports neither of them, and of the rest of
wgtune `wgtune.support` only.

Modules, in reading order:

- `manifest`: manifest.json, what a bundle is and the hashes of its files
- `file_digest`: SHA-256 of a file and of its pieces
- `plan`: plan.json, buffers and dispatches
- `documents`: provenance.json and measured.json, which no runtime reads
- `shader_constants`: the uniform of constants of a shader that several kernels share
- `strict_json`: what the two documents' types have in common; reading and writing JSON
- `json_schema`: the JSON Schemas from which the page's TypeScript types are generated
- `reader`: opens a bundle folder and checks every file against the manifest
- `sampler_tables`: samplers' runs as tables of coefficients
- `tokenizer`: prompts to token ids
"""
