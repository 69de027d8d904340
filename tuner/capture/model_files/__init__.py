"""What a diffusers folder says of itself before anything is captured.

May import ``support`` alone. Reading order:

- `git_lfs`: files that Git LFS left as pointers.
- `pipeline_parts`: which pipelines have the networks that are captured, and which of their parts a bundle leaves out.
- `single_file`: a whole model in one file, as trained outside diffusers.
- `lora`: LoRA files, merged into weights when these are read.
- `textual_inversion`: words of prompts with a vector of their own.
"""
