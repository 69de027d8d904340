"""The recurrence with the fewest states that gives a run's coefficients (after Ho and Kalman, 1966).

All that the later model inputs need of what went in before call i are a few combinations of it: as many as the rank of
the block of coefficients with those rows and columns. One is the input of call i itself; the others are what the
sampler remembers beside it, chosen so that they stay as they are where the latent of call i is replaced.
"""

from __future__ import annotations

import numpy as np

from ..format.sampler_tables import MOST_STATES, SamplerRun
from .schedulers import SamplerError
from .tracing import Trace

_WINDOW = 2 * MOST_STATES
"""Model inputs that are looked ahead: within these everything is used that a sampler keeps."""

_RANK_TOLERANCE = 1e-9
"""Singular values below this share of a run's largest coefficient are rounding; those of states are above 1e-4."""

_TOLERANCE = 1e-7
"""Largest difference of a coefficient from the trace's, relative to the run's largest."""


def find_recurrence(trace: Trace) -> SamplerRun:
    """Return the recurrence of a run; raise SamplerError where it needs more than `MOST_STATES` states."""
    inputs = trace.inputs
    calls = len(inputs) - 1
    largest = float(np.abs(inputs).max())
    bases = [_states(inputs, call, _RANK_TOLERANCE * largest) for call in range(calls + 1)]
    count = max(len(basis) for basis in bases)
    if count > MOST_STATES:
        raise SamplerError(f"the sampler remembers {count} latents, of {MOST_STATES} possible", "choose another one")
    rows = np.zeros((calls + 1, count, 2 + count))
    rows[0, 0, 0] = bases[0][0, 0]
    for call in range(calls):
        before, after = bases[call], bases[call + 1]
        column = 3 * call  # of what is added to the latent of this call, on which only state 0 depends
        kept = after[:, : column + 1]
        first = kept[:, column] / before[0, column]
        rest = (kept - np.outer(first, before[0])) @ before[1:].T
        rows[call + 1, : len(after), 0] = after[:, column + 2]
        rows[call + 1, : len(after), 1] = after[:, column + 1]
        rows[call + 1, : len(after), 2 : 2 + len(before)] = np.column_stack([first, rest])
    if not np.abs(_unrolled(rows, calls) - _without_additions(inputs)).max() <= _TOLERANCE * largest:
        raise SamplerError("the sampler remembers more than can be followed", "choose another one")
    draws = np.append(True, trace.draws)
    return SamplerRun(trace.timesteps.astype(np.float32), draws, rows.astype(np.float32), trace.intervals)


def _states(inputs: np.ndarray, call: int, tolerance: float) -> np.ndarray:
    """Return the states before ``call``, as coefficients of what went in before: float64 [S, 3 call + 1]."""
    future = inputs[call : call + _WINDOW, : 3 * call + 1]
    latent = future[0]
    memory = future[1:] - np.outer(future[1:, -1] / latent[-1], latent)
    if not len(memory):
        return future
    _, values, vectors = np.linalg.svd(memory, full_matrices=False)
    found = vectors[: int((values > tolerance).sum())]
    # A singular vector's sign is arbitrary.
    signs = np.sign(np.take_along_axis(found, np.abs(found).argmax(axis=1, keepdims=True), axis=1))
    return np.concatenate([latent[None], found * signs])


def _unrolled(rows: np.ndarray, calls: int) -> np.ndarray:
    """Return the coefficients of every model input that a recurrence gives, as `_without_additions` does."""
    states = np.zeros((rows.shape[1], 1 + 2 * calls))
    found = []
    for call, row in enumerate(rows):
        states = row[:, 2:] @ states
        states[:, 2 * call] += row[:, 0]
        if call:
            states[:, 2 * call - 1] += row[:, 1]
        found.append(states[0])
    return np.array(found)


def _without_additions(inputs: np.ndarray) -> np.ndarray:
    """Return a trace's coefficients of the first noise, then of each call's output and noise."""
    kept = [0, *(column for column in range(inputs.shape[1]) if column % 3)]
    return inputs[:, kept]
