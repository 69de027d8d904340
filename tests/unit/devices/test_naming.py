import pytest

from wgtune.devices.naming import device_key, driver_name, model_and_architecture, vendor_name

REPORTED = [
    # what a driver says, the backend, the model, the architecture, the key
    ("llvmpipe (LLVM 15.0.6, 256 bits)", "vulkan", "llvmpipe", "", "vulkan:llvmpipe"),
    ("llvmpipe (LLVM 20.1.2, 512 bits)", "vulkan", "llvmpipe", "", "vulkan:llvmpipe"),
    ("SwiftShader Device (Subzero)", "vulkan", "SwiftShader Device", "", "vulkan:swiftshader-device"),
    ("SwiftShader Device (LLVM 16.0.0)", "vulkan", "SwiftShader Device", "", "vulkan:swiftshader-device"),
    ("NVIDIA H200", "vulkan", "NVIDIA H200", "", "vulkan:nvidia-h200"),
    ("Apple M2", "metal", "Apple M2", "", "metal:apple-m2"),
    ("AMD Radeon RX 6800 (RADV NAVI21)", "vulkan", "AMD Radeon RX 6800", "navi21", "vulkan:amd-radeon-rx-6800"),
    (
        "AMD Radeon RX 6800 (navi21, LLVM 15.0.6, DRM 3.49, 6.1.0)",
        "gl",
        "AMD Radeon RX 6800",
        "navi21",
        "gl:amd-radeon-rx-6800",
    ),
    (
        "Mesa Intel(R) UHD Graphics 620 (KBL GT2)",
        "gl",
        "Intel UHD Graphics 620",
        "kbl gt2",
        "gl:intel-uhd-graphics-620",
    ),
    (
        "NVIDIA GeForce RTX 3060/PCIe/SSE2",
        "gl",
        "NVIDIA GeForce RTX 3060",
        "",
        "gl:nvidia-geforce-rtx-3060",
    ),
    # A family's name stands for many GPUs: the chip keeps them apart.
    (
        "AMD Radeon Graphics (RADV RENOIR)",
        "vulkan",
        "AMD Radeon Graphics",
        "renoir",
        "vulkan:amd-radeon-graphics-renoir",
    ),
    (
        "Intel(R) Iris(R) Xe Graphics (TGL GT2)",
        "vulkan",
        "Intel Iris Xe Graphics",
        "tgl gt2",
        "vulkan:intel-iris-xe-graphics-tgl-gt2",
    ),
]


@pytest.mark.parametrize(("reported", "backend", "model", "architecture", "key"), REPORTED)
def test_names_lose_the_drivers_noise(reported: str, backend: str, model: str, architecture: str, key: str) -> None:
    assert model_and_architecture(reported) == (model, architecture)
    assert device_key(backend, model, architecture) == key


@pytest.mark.parametrize("reported", ["", "()", "   "])
def test_a_driver_that_says_nothing_still_gets_a_name(reported: str) -> None:
    model, architecture = model_and_architecture(reported)
    assert device_key("vulkan", model, architecture) not in ("vulkan:", "vulkan")


def test_vendors() -> None:
    assert vendor_name(0x10DE, "NVIDIA") == "nvidia"
    assert vendor_name(0x10005, "llvmpipe") == "mesa"
    assert vendor_name(0, "Some Maker") == "some-maker"
    assert vendor_name(0, "") == "unknown"


def test_a_driver_without_a_description_is_called_by_its_name() -> None:
    assert driver_name("Mesa 22.3.6 (LLVM 15.0.6)", "llvmpipe") == "Mesa 22.3.6 (LLVM 15.0.6)"
    assert driver_name(" ", "SwiftShader driver") == "SwiftShader driver"
