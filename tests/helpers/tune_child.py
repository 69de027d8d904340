"""A process that tunes three small kernels into a database, for tests that kill it. Prints a line as each trial ends.

Arguments: database file or URL, trials per kernel, device as JSON; "overlap" to prepare candidates meanwhile.
"""

from __future__ import annotations

import json
import sys

from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.support.tvm_import import import_tvm_without_torch
from wgtune.tuner.session.events import Event, SessionStarted, Stopping, TrialEnded
from wgtune.tuner.session.request import TuneRequest


class Printer:
    def on(self, event: Event) -> None:
        if isinstance(event, SessionStarted | Stopping):
            print(type(event).__name__, flush=True)
        elif isinstance(event, TrialEnded):
            print(event.kind.value, event.state.value, flush=True)


def main() -> int:
    path, trials, device, *overlap = sys.argv[1:]
    # These load TVM: as wgtune's own processes do, without PyTorch.
    import_tvm_without_torch()
    from tuning_kernels import capture_of, matmul, softmax, transpose

    from wgtune.tuner.session.session import tune

    request = TuneRequest(
        capture=capture_of(matmul(), softmax(), transpose()),
        device=Device.from_json(json.loads(device)),
        tier=TIERS["default"],
        trials=int(trials),
        overlap="overlap" in overlap,
    )
    with Store.open(path) as store:
        summary = tune(request, store, Printer())
    print(json.dumps(summary.to_json()), flush=True)
    return 130 if summary.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
