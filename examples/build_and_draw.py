"""Build a bundle from the best records of a device, then draw an image with the shaders that a browser would run.

python examples/build_and_draw.py --model ./my-model --device vulkan:nvidia-h200 --output dist
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import wgtune

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True, help="a diffusers folder or a Hugging Face id, with weights")
parser.add_argument("--device", default="", help="the device key whose records are used; by default baselines only")
parser.add_argument("--db", help="a SQLite file or a SQLAlchemy URL; by default your own database")
parser.add_argument("--output", type=Path, default=Path("dist"), help="the bundle's folder")
parser.add_argument("--prompt", default="a lighthouse at dusk")
parser.add_argument("--steps", type=int, default=20)


def main() -> None:
    """Build, draw one image, and write it beside the bundle."""
    args = parser.parse_args()
    request = wgtune.BuildRequest(args.model, args.output, page=False)
    if args.device:
        with wgtune.Store.open(args.db, create=False) as store:
            devices = {device.key: device for device in store.devices()}
            if args.device not in devices:
                raise SystemExit(f"no device {args.device!r} in the database; it has: {', '.join(devices)}")
            summary = wgtune.build_bundle(replace(request, device=devices[args.device]), store)
    else:
        summary = wgtune.build_bundle(request, None)
    (program,) = summary.programs
    print(f"{program.kernels} kernels, {program.from_records} of them from records, {summary.nbytes / 2**20:.0f} MiB")

    pipe = wgtune.StableDiffusionPipeline.from_bundle(args.output)
    generator = torch.Generator().manual_seed(7)
    image = pipe(args.prompt, num_inference_steps=args.steps, generator=generator).images[0]
    path = args.output.with_suffix(".png")
    image.save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
