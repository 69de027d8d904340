"""Pictures larger than a binding, computed in groups of channels.

WebGPU grants a storage binding of 128 MiB by default; the last level of Stable Diffusion's decoder holds pictures of
256 MiB at 512². A picture [batch, channels, height, width] over the limit becomes several tensors of fewer channels,
and operators work on these:

- element-wise operators and upsampling on each part by itself;
- group norm likewise, where no part ends within a group: its means are of one group, so nothing changes;
- a convolution computes each part of its result from all parts of its input, adding one after the other. It reads a
  picture that is made larger for it alone from the small one (`rewrites/upsampled_convolutions.py`).

Parts are as large as a binding, so that convolutions make many channels at once. Two kinds are smaller, since they only
live until convolutions have added them, and these have results of one tensor: what the first residual block of a level
reads, where 64 channels remain, and results of norms, also of pictures that fit a binding. Each sum is then read and
written anew for each part, which takes a few percent of a convolution's time.

Pictures are measured as float32, also where they will be stored as half floats: the weights are then the same.

All of it is exact but for the order in which a convolution adds. Weights are sliced with the parts; the slices move
into the weight transform. An operator that cannot work on parts reads them in sequence as one tensor (`CONCAT`).

Reading order:

- `readers`: what reads each variable, and which results convolutions alone read.
- `splitter`: emits a stage anew, in parts.
"""

from .splitter import split_channels

__all__ = ["split_channels"]
