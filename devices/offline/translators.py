"""Several browsers that translate at once.

Nearly all of the time goes to the software GPU's own compiler, which makes every pipeline that Tint's SPIR-V is printed
of, one at a time in each browser.
"""

from __future__ import annotations

import os
import queue
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from ..program import Shader
from .translation import TranslationError, Translator

_MOST = 4
"""Most browsers: each takes some hundred megabytes."""


class Translators:
    """As many translators as there are processors, `_MOST` at most."""

    def __init__(self) -> None:
        """Raises DeviceError as `Translator` does."""
        self._all = [Translator() for _ in range(min(_MOST, os.cpu_count() or 1))]
        self.version = self._all[0].version
        """The browser's name and version."""
        self._free: queue.SimpleQueue[Translator] = queue.SimpleQueue()
        for translator in self._all:
            self._free.put(translator)
        self._pool = ThreadPoolExecutor(len(self._all), thread_name_prefix="translate")

    def translate(self, shaders: Sequence[Shader]) -> Iterator[bytes | TranslationError]:
        """Yield each shader's SPIR-V in order, or why there is none. Raises DeviceError as `Translator.spirv`."""
        left = iter(shaders)
        # Some more than there are browsers, so that none waits for whoever takes the results.
        running: deque[Future[bytes | TranslationError]] = deque(
            self._pool.submit(self._translate, shader) for shader in islice(left, 2 * len(self._all))
        )
        while running:
            yield running.popleft().result()
            for shader in islice(left, 1):
                running.append(self._pool.submit(self._translate, shader))

    def close(self) -> None:
        """End every browser; translations that are under way fail."""
        for translator in self._all:
            translator.end()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for translator in self._all:
            translator.close()

    def _translate(self, shader: Shader) -> bytes | TranslationError:
        translator = self._free.get()
        try:
            return translator.spirv(shader)
        except TranslationError as error:
            return error
        finally:
            self._free.put(translator)
