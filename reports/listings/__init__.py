"""Results of single commands as tables, text or JSON.

May import `wgtune.reports` and the packages whose results are printed; results of `wgtune.build` as types only.

- `devices`, `health`: `wgtune devices`.
- `kernels`: `wgtune kernels`.
- `database`, `session`, `aliases`: `wgtune db info`, `check`, `replay`, `show` and `alias`.
- `exchange`: `wgtune db merge`, `release`, `diff`, `export` and `import`.
- `bundle`, `batch`: `wgtune build` and `wgtune generate`.
- `bundle_sources`: `wgtune report bundle`.
"""
