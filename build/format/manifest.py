"""manifest.json: what a bundle is, what it needs, and the size and SHA-256 of its files (docs/bundle.md)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ...support.errors import BundleError

FORMAT = 1
"""Version of the bundle format that is written and read here."""

MANIFEST = "manifest.json"
PLAN = "plan.json"
TOKENIZER = "tokenizer/tokenizer.json"


@dataclass(frozen=True)
class ImageInfo:
    """What one run of the plan draws: size in pixels, images at once, ``latent`` as channels, height, width."""

    width: int
    height: int
    batch: int
    guidance: bool
    latent: tuple[int, int, int]


@dataclass(frozen=True)
class BorrowedInfo:
    """Schedules of another device, verified there and not where the bundle is for.

    ``match`` is a `transfer_lookup.Match`: how near ``device`` is. The ``kernels`` that run them take
    ``time_share`` of an image's time, an estimate, None where nothing is known.
    """

    match: str
    device: str
    kernels: int
    time_share: float | None


@dataclass(frozen=True)
class TunedInfo:
    """Where the kernels come from.

    ``device`` is the key of the device whose records were used, "" for none. ``from_records`` kernels run a schedule
    that was measured and verified there, ``from_baseline`` have none and run untuned; those take
    ``baseline_time_share`` of an image's time, an estimate, None where nothing is known. ``created`` is UTC in ISO
    8601. ``borrowed`` lists the kernels between the two, which run another device's schedules.
    """

    device: str
    software: bool
    created: str
    kernels: int
    from_records: int
    from_baseline: int
    baseline_time_share: float | None
    borrowed: tuple[BorrowedInfo, ...] = ()


@dataclass(frozen=True)
class PromptInfo:
    """``length`` token ids per prompt, and the ids that frame and fill them."""

    length: int
    bos: int
    eos: int
    pad: int


@dataclass(frozen=True)
class TableInfo:
    """A scheduler's file, its diffusers class, and per number of inference steps the offset (float32s) and the UNet
    calls.
    """

    file: str
    class_name: str
    runs: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes, and SHA-256 in lower-case hexadecimal."""

    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The whole manifest. ``scheduler_config`` is the model's own scheduler_config.json."""

    wgtune: str
    model: str
    capture: str
    image: ImageInfo
    tier: str
    limits: dict[str, int]
    features: tuple[str, ...]
    tuned: TunedInfo
    prompt: PromptInfo
    default_scheduler: str
    scheduler_config: dict[str, Any]
    tables: dict[str, TableInfo]
    files: dict[str, FileInfo] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of manifest.json."""
        image, tuned, prompt = self.image, self.tuned, self.prompt
        return {
            "format": FORMAT,
            "wgtune": self.wgtune,
            "model": {"name": self.model, "capture": self.capture},
            "image": {
                "width": image.width,
                "height": image.height,
                "batch": image.batch,
                "guidance": image.guidance,
                "latent": list(image.latent),
            },
            "tier": self.tier,
            "requires": {"limits": self.limits, "features": list(self.features)},
            "tuned": {
                "device": tuned.device,
                "software": tuned.software,
                "created": tuned.created,
                "kernels": tuned.kernels,
                "from_records": tuned.from_records,
                "from_baseline": tuned.from_baseline,
                "baseline_time_share": tuned.baseline_time_share,
                "borrowed": [asdict(lender) for lender in tuned.borrowed],
            },
            "prompt": {"length": prompt.length, "bos": prompt.bos, "eos": prompt.eos, "pad": prompt.pad},
            "schedulers": {
                "default": self.default_scheduler,
                "config": self.scheduler_config,
                "tables": {
                    name: {
                        "file": table.file,
                        "class": table.class_name,
                        "runs": {str(s): {"offset": o, "calls": c} for s, (o, c) in sorted(table.runs.items())},
                    }
                    for name, table in self.tables.items()
                },
            },
            "files": {name: {"bytes": f.nbytes, "sha256": f.sha256} for name, f in sorted(self.files.items())},
        }

    @staticmethod
    def from_json(data: Any) -> Manifest:
        """The inverse of `to_json`; raises BundleError where the data is no manifest, or of another format version."""
        if not isinstance(data, dict) or "format" not in data:
            raise BundleError("manifest.json is not a bundle's manifest", "build the bundle again")
        if data["format"] != FORMAT:
            raise BundleError(
                f"the bundle has format {data['format']!r}, this wgtune reads format {FORMAT}",
                "build it again with this version, or use the version that built it",
            )
        try:
            return _parse(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"manifest.json is damaged: {error!r}", "build the bundle again") from error


def _parse(data: dict[str, Any]) -> Manifest:
    image, tuned, prompt, schedulers = data["image"], data["tuned"], data["prompt"], data["schedulers"]
    channels, height, width = image["latent"]
    share = tuned.get("baseline_time_share")
    manifest = Manifest(
        wgtune=str(data["wgtune"]),
        model=str(data["model"]["name"]),
        capture=str(data["model"]["capture"]),
        image=ImageInfo(
            width=int(image["width"]),
            height=int(image["height"]),
            batch=int(image["batch"]),
            guidance=bool(image["guidance"]),
            latent=(int(channels), int(height), int(width)),
        ),
        tier=str(data["tier"]),
        limits={str(name): int(value) for name, value in data["requires"]["limits"].items()},
        features=tuple(map(str, data["requires"]["features"])),
        tuned=TunedInfo(
            device=str(tuned["device"]),
            software=bool(tuned["software"]),
            created=str(tuned["created"]),
            kernels=int(tuned["kernels"]),
            from_records=int(tuned["from_records"]),
            from_baseline=int(tuned["from_baseline"]),
            baseline_time_share=None if share is None else float(share),
            borrowed=tuple(map(_borrowed, tuned.get("borrowed", ()))),
        ),
        prompt=PromptInfo(int(prompt["length"]), int(prompt["bos"]), int(prompt["eos"]), int(prompt["pad"])),
        default_scheduler=str(schedulers["default"]),
        scheduler_config=dict(schedulers["config"]),
        tables={
            str(name): TableInfo(
                file=str(table["file"]),
                class_name=str(table["class"]),
                runs={int(steps): (int(run["offset"]), int(run["calls"])) for steps, run in table["runs"].items()},
            )
            for name, table in schedulers["tables"].items()
        },
        files={str(name): FileInfo(int(f["bytes"]), str(f["sha256"])) for name, f in data["files"].items()},
    )
    if manifest.default_scheduler not in manifest.tables:
        raise ValueError(f"the default scheduler {manifest.default_scheduler!r} has no table")
    for name in manifest.files:
        # A bundle may come from anywhere: its file names must not lead out of its folder.
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise ValueError(f"{name!r} is not a path inside the bundle")
    return manifest


def _borrowed(data: dict[str, Any]) -> BorrowedInfo:
    share = data["time_share"]
    return BorrowedInfo(
        str(data["match"]), str(data["device"]), int(data["kernels"]), None if share is None else float(share)
    )


def dump(data: dict[str, Any]) -> bytes:
    """JSON as it is written into a bundle: compact UTF-8."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8") + b"\n"
