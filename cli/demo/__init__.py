"""``wgtune demo``: all steps once, on a model small enough for any machine.

May import all packages but other commands. Reading order:

- `command`: the command and its options.
- `run`: make the model, tune it, report, build the bundle, draw a picture.
- `model`: the pipeline's configuration and tokenizer.
- `weights`: its random weights, chosen so that the picture is not grey noise.
- `trained`: its trained weights, as they are kept.
- `scenes`: the pictures it is trained on, with their captions.
- `reader`: what a picture of such a scene shows.
- `training`: how it is trained.
"""
