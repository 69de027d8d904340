"""The few functions and structures of Vulkan 1.3 that compile a compute shader, by ctypes on the system's loader.

Names, numbers and layouts are of the Vulkan specification and its registry, vk.xml.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_uint32, c_uint64, c_void_p
from typing import Any, NamedTuple

from ...support.errors import DeviceError

_API_VERSION = (1 << 22) | (3 << 12)
_EXTENSION = b"VK_KHR_pipeline_executable_properties"
_STORAGE_BUFFER, _UNIFORM_BUFFER, _COMPUTE_STAGE = 7, 6, 0x20
_CAPTURE = 0x40 | 0x80
"""Keep a pipeline's statistics and its internal representations."""

_INCOMPLETE = 5


class _Struct(ctypes.Structure):
    """A structure that begins with its type and a pointer to an extending structure."""

    TYPE = 0

    def __init__(self, **values: Any) -> None:
        super().__init__(sType=self.TYPE, **values)


def _struct(name: str, kind: int, *fields: tuple[str, Any]) -> type[_Struct]:
    head = [("sType", c_uint32), ("pNext", c_void_p)]
    return type(name, (_Struct,), {"TYPE": kind, "_fields_": [*head, *fields]})


def _flags(name: str, kind: int, count: int) -> type[_Struct]:
    """A structure of ``count`` booleans of 32 bits."""
    return _struct(name, kind, ("flags", c_uint32 * count))


_ApplicationInfo = _struct(
    *("ApplicationInfo", 0, ("name", c_char_p), ("version", c_uint32), ("engine", c_char_p)),
    *(("engineVersion", c_uint32), ("apiVersion", c_uint32)),
)
_InstanceCreateInfo = _struct(
    *("InstanceCreateInfo", 1, ("flags", c_uint32), ("application", c_void_p), ("layerCount", c_uint32)),
    *(("layers", c_void_p), ("extensionCount", c_uint32), ("extensions", c_void_p)),
)
_Features2 = _flags("PhysicalDeviceFeatures2", 1000059000, 55)
_Features11 = _flags("PhysicalDeviceVulkan11Features", 49, 12)
_Features12 = _flags("PhysicalDeviceVulkan12Features", 51, 47)
_Features13 = _flags("PhysicalDeviceVulkan13Features", 53, 15)
_ExecutableFeatures = _flags("PhysicalDevicePipelineExecutablePropertiesFeaturesKHR", 1000269000, 1)
_Properties2 = _struct(
    *("PhysicalDeviceProperties2", 1000059001, ("head", c_uint32 * 5), ("name", c_char * 256)),
    ("rest", c_uint64 * 69),
)
_DriverProperties = _struct(
    *("PhysicalDeviceDriverProperties", 1000196000, ("id", c_uint32), ("name", c_char * 256)),
    *(("info", c_char * 256), ("conformance", c_uint32)),
)
_QueueCreateInfo = _struct(
    *("DeviceQueueCreateInfo", 2, ("flags", c_uint32), ("family", c_uint32), ("count", c_uint32)),
    ("priorities", c_void_p),
)
_DeviceCreateInfo = _struct(
    *("DeviceCreateInfo", 3, ("flags", c_uint32), ("queueCount", c_uint32), ("queues", c_void_p)),
    *(("layerCount", c_uint32), ("layers", c_void_p), ("extensionCount", c_uint32)),
    *(("extensions", POINTER(c_char_p)), ("features", c_void_p)),
)
_ModuleCreateInfo = _struct(
    "ShaderModuleCreateInfo", 16, ("flags", c_uint32), ("size", ctypes.c_size_t), ("code", c_char_p)
)
_SetLayoutCreateInfo = _struct(
    "DescriptorSetLayoutCreateInfo", 32, ("flags", c_uint32), ("count", c_uint32), ("bindings", c_void_p)
)
_LayoutCreateInfo = _struct(
    *("PipelineLayoutCreateInfo", 30, ("flags", c_uint32), ("setCount", c_uint32), ("sets", POINTER(c_uint64))),
    *(("rangeCount", c_uint32), ("ranges", c_void_p)),
)
_StageCreateInfo = _struct(
    *("PipelineShaderStageCreateInfo", 18, ("flags", c_uint32), ("stage", c_uint32), ("module", c_uint64)),
    *(("entry", c_char_p), ("specialization", c_void_p)),
)
_PipelineCreateInfo = _struct(
    *("ComputePipelineCreateInfo", 29, ("flags", c_uint32), ("stage", _StageCreateInfo), ("layout", c_uint64)),
    *(("base", c_uint64), ("baseIndex", ctypes.c_int32)),
)
_ExecutableInfo = _struct("PipelineExecutableInfoKHR", 1000269003, ("pipeline", c_uint64), ("index", c_uint32))
_Statistic = _struct(
    *("PipelineExecutableStatisticKHR", 1000269004, ("name", c_char * 256), ("description", c_char * 256)),
    *(("format", c_uint32), ("value", c_uint64)),
)
_Representation = _struct(
    *("PipelineExecutableInternalRepresentationKHR", 1000269005, ("name", c_char * 256)),
    *(("description", c_char * 256), ("isText", c_uint32), ("size", ctypes.c_size_t), ("data", c_void_p)),
)


class _Binding(ctypes.Structure):
    _fields_ = [
        ("binding", c_uint32),
        ("type", c_uint32),
        ("count", c_uint32),
        ("stages", c_uint32),
        ("samplers", c_void_p),
    ]


class Compiled(NamedTuple):
    """The statistics of a compiled shader by the driver's names, and the texts of its representations by theirs."""

    statistics: dict[str, int]
    texts: dict[str, str]


class VulkanDevice:
    """The first physical device of the loader's drivers, opened with all its features."""

    def __init__(self) -> None:
        """Open it. Raises DeviceError where there is no loader, no device, or it offers no statistics."""
        try:
            self._vulkan = ctypes.CDLL("libvulkan.so.1")
        except OSError as error:
            raise DeviceError(f"Vulkan's loader is missing: {error}", "apt-get install libvulkan1") from None
        application = _ApplicationInfo(apiVersion=_API_VERSION)
        instance = c_void_p()
        info = _InstanceCreateInfo(application=ctypes.addressof(application))
        self._call("vkCreateInstance", byref(info), None, byref(instance))
        count, physical = c_uint32(1), c_void_p()
        # VK_INCOMPLETE: there are more than the one that was asked for.
        self._call("vkEnumeratePhysicalDevices", instance, byref(count), byref(physical), more=(_INCOMPLETE,))
        if not count.value:
            raise DeviceError("the driver lists no device")
        self._describe(physical)
        self._device = self._open(physical)

    def _describe(self, physical: c_void_p) -> None:
        driver = _DriverProperties()
        properties = _Properties2(pNext=ctypes.addressof(driver))
        self._vulkan.vkGetPhysicalDeviceProperties2(physical, byref(properties))
        self.name: str = properties.name.decode(errors="replace")
        """The device's name."""
        self.driver: str = driver.info.decode(errors="replace")
        """The driver and its version, such as ``Mesa 22.3.6``."""

    def _open(self, physical: c_void_p) -> c_void_p:
        executable = _ExecutableFeatures()
        chain: _Struct = executable
        kept = [executable]
        for kind in (_Features13, _Features12, _Features11, _Features2):
            chain = kind(pNext=ctypes.addressof(chain))
            kept.append(chain)
        self._vulkan.vkGetPhysicalDeviceFeatures2(physical, byref(chain))
        if not executable.flags[0]:
            raise DeviceError(f"{self.name} offers no statistics of its compiler ({_EXTENSION.decode()})")
        priority = c_float(1)
        queue = _QueueCreateInfo(count=1, priorities=ctypes.addressof(priority))
        extensions = (c_char_p * 1)(_EXTENSION)
        info = _DeviceCreateInfo(
            pNext=ctypes.addressof(chain),
            queueCount=1,
            queues=ctypes.addressof(queue),
            extensionCount=1,
            extensions=extensions,
        )
        device = c_void_p()
        self._call("vkCreateDevice", physical, byref(info), None, byref(device))
        return device

    def compile(self, code: bytes, entry: str, bindings: Sequence[tuple[int, bool]]) -> Compiled:
        """Compile a compute shader in SPIR-V.

        ``bindings`` are those of descriptor set 0: number, and whether it is a uniform buffer rather than a storage
        buffer. Raises DeviceError where the driver refuses the shader.
        """
        module, set_layout, layout, pipeline = c_uint64(), c_uint64(), c_uint64(), c_uint64()
        try:
            info = _ModuleCreateInfo(size=len(code), code=code)
            self._call("vkCreateShaderModule", self._device, byref(info), None, byref(module))
            array = (_Binding * max(1, len(bindings)))(
                *(
                    _Binding(number, _UNIFORM_BUFFER if is_uniform else _STORAGE_BUFFER, 1, _COMPUTE_STAGE)
                    for number, is_uniform in bindings
                )
            )
            sets = _SetLayoutCreateInfo(count=len(bindings), bindings=ctypes.addressof(array))
            self._call("vkCreateDescriptorSetLayout", self._device, byref(sets), None, byref(set_layout))
            layouts = _LayoutCreateInfo(setCount=1, sets=ctypes.pointer(set_layout))
            self._call("vkCreatePipelineLayout", self._device, byref(layouts), None, byref(layout))
            stage = _StageCreateInfo(stage=_COMPUTE_STAGE, module=module.value, entry=entry.encode())
            pipelines = _PipelineCreateInfo(flags=_CAPTURE, stage=stage, layout=layout.value, baseIndex=-1)
            self._call(
                "vkCreateComputePipelines", self._device, c_uint64(0), 1, byref(pipelines), None, byref(pipeline)
            )
            return Compiled(self._statistics(pipeline.value), self._texts(pipeline.value))
        finally:
            for name, handle in (
                ("vkDestroyPipeline", pipeline),
                ("vkDestroyPipelineLayout", layout),
                ("vkDestroyDescriptorSetLayout", set_layout),
                ("vkDestroyShaderModule", module),
            ):
                getattr(self._vulkan, name)(self._device, handle, None)

    def _statistics(self, pipeline: int) -> dict[str, int]:
        get, info, count = self._extension("vkGetPipelineExecutableStatisticsKHR", pipeline)
        get(self._device, byref(info), byref(count), None)
        found = (_Statistic * count.value)(*(_Statistic() for _ in range(count.value)))
        get(self._device, byref(info), byref(count), found)
        return {one.name.decode(): int(one.value) for one in found[: count.value]}

    def _texts(self, pipeline: int) -> dict[str, str]:
        get, info, count = self._extension("vkGetPipelineExecutableInternalRepresentationsKHR", pipeline)
        get(self._device, byref(info), byref(count), None)
        found = (_Representation * count.value)(*(_Representation() for _ in range(count.value)))
        get(self._device, byref(info), byref(count), found)  # the sizes
        buffers = [ctypes.create_string_buffer(max(1, one.size)) for one in found]
        for one, buffer in zip(found, buffers, strict=True):
            one.data = ctypes.addressof(buffer)
        get(self._device, byref(info), byref(count), found)
        return {
            one.name.decode(): buffer.value.decode(errors="replace")
            for one, buffer in zip(found, buffers, strict=True)
            if one.isText
        }

    def _extension(self, name: str, pipeline: int) -> tuple[Any, _Struct, c_uint32]:
        self._vulkan.vkGetDeviceProcAddr.restype = c_void_p
        address = self._vulkan.vkGetDeviceProcAddr(self._device, name.encode())
        function = ctypes.CFUNCTYPE(ctypes.c_int32, c_void_p, c_void_p, c_void_p, c_void_p)(address)
        return function, _ExecutableInfo(pipeline=pipeline), c_uint32()

    def _call(self, name: str, *arguments: Any, more: tuple[int, ...] = ()) -> None:
        result = getattr(self._vulkan, name)(*arguments)
        if result not in (0, *more):
            raise DeviceError(f"{name} failed with VkResult {result}")
