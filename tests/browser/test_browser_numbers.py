"""What must be the same numbers as Python's: noise and token ids."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from chromium import Serve
from playwright.sync_api import Page
from synthetic_bundle import SyntheticBundle, make_bundle
from transformers import CLIPTokenizerFast

from wgtune.cli.demo.model import write_clip_tokenizer


def test_noise_is_torchs(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    url = serve(bundle.folder)
    page.goto(url)
    seeds = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 1234567890123456, 2**53 - 1]
    sizes = [1, 2, 3, 15, 16, 17, 31, 32, 33, 1000, 4 * 64 * 64]
    got = page.evaluate(
        """async ([url, seeds, sizes]) => {
          const { randn } = await import(`${url}assets/wgtune.js`);
          return seeds.map((seed) => sizes.map((size) => Array.from(randn(seed, size))));
        }""",
        [url, seeds, sizes],
    )
    for seed, per_size in zip(seeds, got, strict=True):
        for size, values in zip(sizes, per_size, strict=True):
            wanted = torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed))
            error = (torch.tensor(values) - wanted).abs().max().item()
            assert error <= 1e-6, f"seed {seed}, {size} numbers"


TEXTS = [
    "",
    " ",
    "a photo of an astronaut riding a horse on mars",
    "A  Photo, of\tCAFÉ — it's 2024's best!!",
    "don't we'll I'D 3.14159 (hello_world) <b>x</b> ((masterpiece:1.2))",
    "日本語のテスト 🐎 naïve résumé cafe\u0301",
    "👨‍👩‍👧‍👦 🇫🇷 👍🏽 한국어 ไทย हिन्दी مرحبا Привет",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ",
    "İstanbul ẞ straße ﬁ Ⅷ ½ ² ٣٤٥",
    "line\nbreak\r\ntab\u00a0nbsp\u3000wide\u200bzero\u2028sep\ufeff",
    "<|endoftext|> in <|startoftext|>text<|endoftext|>",
    "word " * 200,
    "a photo of <mycat>, and MYDOG<MyCat>s",
    "x" * 500,
    "\x00\x07",
    "\ufeff$\ufeff$\ufeff!\u0085?",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CLIPTokenizerFast]:
    """A bundle with CLIP's own tokenizer, and the same in Python."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip_tokenizer(folder / "source")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder / "source")
    tokenizer.add_tokens(["<mycat>", "mydog"])  # as textual inversions do
    make_bundle(folder / "bundle")
    tokenizer.save_pretrained(folder / "bundle/tokenizer")
    manifest = json.loads((folder / "bundle/manifest.json").read_text())
    manifest["prompt"] = {"length": 77, "bos": 49406, "eos": 49407, "pad": 49407}
    _list_again(folder / "bundle", manifest)
    return folder / "bundle", tokenizer


def _list_again(folder: Path, manifest: dict) -> None:
    import hashlib

    for path in manifest["files"]:
        data = (folder / path).read_bytes()
        manifest["files"][path] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_token_ids_are_pythons(page: Page, serve: Serve, clip: tuple[Path, CLIPTokenizerFast]) -> None:
    folder, tokenizer = clip
    chance = random.Random(2)
    ranges = [(32, 127), (160, 0x600), (0x900, 0x3100), (0x4E00, 0xD7FF), (0xF900, 0xFFFD), (0x1F300, 0x1FAFF)]
    texts = TEXTS + [
        "".join(chr(chance.randrange(*chance.choice([*ranges, (32, 33), (97, 123)]))) for _ in range(size % 60))
        for size in range(400)
    ]
    page.goto(serve(folder))
    got = page.evaluate(
        """async (texts) => {
          const pipeline = await window.wgtune.ready;
          return Promise.all(texts.map(async (text) => Array.from((await pipeline.tokenize(text)).ids)));
        }""",
        texts,
    )
    for text, ids in zip(texts, got, strict=True):
        wanted = tokenizer(text, padding="max_length", truncation=True, max_length=77)["input_ids"]
        assert ids == wanted, repr(text)
