"""From a Stable Diffusion pipeline to the kernels that it launches.

May import ``database.tvm`` (the identity of a kernel), ``devices.limits``,
``tuner.schedule_rules`` (what attention computes) and ``support``. Needs neither a GPU nor
weights. Reading order:

- `model_capture`: `capture_model`, the entry point; stages come from the cache, or are captured one by one.
- `sources`: where a model's configuration and weights come from.
- `model_files`: what a pipeline's files say of themselves.
- `networks`: the networks of a pipeline as PyTorch modules with tensors in and out.
- `exporter`: one stage from PyTorch to Relax.
- `torch_ops`: converters for PyTorch operators that TVM's importer lacks or converts badly.
- `attention`: the converter of attention, as one kernel or split.
- `relax_values`: what converters share.
- `channel_split`: pictures larger than a binding, computed in groups of channels.
- `rewrites`: fewer launches: products that share an input become one, transposes become part of products.
- `lowering`: from Relax to fused kernels, and to a list of calls.
- `weights`: how weights are stored, and how they are made of a checkpoint's tensors.
- `sincos`: sine and cosine with a small error on every GPU.
- `kernel`: one kernel's identity, name and work.
- `stage_cache`: captured stages on disk.
- `code_digest`: SHA-256 of a module and all that it imports, a part of the caches' keys.
- `kernel_table`: the rows of ``wgtune kernels``.
"""
