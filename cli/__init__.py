"""The command line: parse options, call one function of the packages below, print the result. May import all packages.

Reading order:

- `app`: the table of all commands, and `main`, where errors become exit statuses.
- `lazy`: groups that import a command's module when the command is chosen.
- `options`, `inputs`: options of several commands; the models and devices that they name.
- `browser`: `--device browser`, which serves the page that lends a browser's GPU.
- `cluster`: `wgtune agent`, and the devices of agents for `wgtune tune --scheduler`.
- `devices`, `kernels`, `tune`, `build`, `generate`, `web`, `database`: the commands, a module for each group.
- `report`: the commands of `wgtune report`, in modules of their own.
- `demo`: `wgtune demo`, all steps once on a small model.
"""
