"""A database in every state that a report must show: tuned, baseline only, failed, missing."""

from __future__ import annotations

from synthetic_store import (
    CONV,
    EMBED,
    LLVMPIPE,
    MATMUL,
    SOFTMAX,
    DeviceInfo,
    Store,
    TrialState,
    add_demo,
    baseline,
    failed,
    measure,
    ok,
    session,
    start,
)

from wgtune.database.schema.records import SessionOutcome


def fill(store: Store, device: DeviceInfo = LLVMPIPE) -> None:
    """MATMUL and CONV tuned (CONV in vain), SOFTMAX only a baseline, EMBED failed, CLAMP missing.

    Baselines of 4, 8 and 2 ms; the best MATMUL takes 1 ms.
    """
    add_demo(store)
    session_id = store.begin_session(session(device))
    baseline(store, session_id, MATMUL, ok(3.9e-3, 4e-3, 4e-3, 4.1e-3))
    baseline(store, session_id, CONV, ok(8e-3))
    baseline(store, session_id, SOFTMAX, ok(2e-3))
    baseline(store, session_id, EMBED, failed(TrialState.WRONG_RESULT, "12 of 4096 elements are off"))
    for i, state in enumerate([TrialState.BUILD_ERROR, TrialState.BUILD_ERROR, TrialState.RUN_TIMEOUT]):
        measure(store, session_id, MATMUL, failed(state), f"bad {i}")
    for i, latency in enumerate([3e-3, 1e-3, 2e-3]):
        end = ok(*(latency * scale for scale in (0.9, 1, 1, 1.1, 1.3)), max_error=2.5e-6)
        measure(store, session_id, MATMUL, end, f"good {i}")
    measure(store, session_id, CONV, ok(9e-3), "slower than the baseline")
    store.begin_trial(start(session_id, SOFTMAX, "left running"))
    store.end_session(session_id, SessionOutcome.COMPLETED)
