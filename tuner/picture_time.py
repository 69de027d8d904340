"""What a program costs a visitor: its share of the time until the first picture of a visit.

That time, not the sum of latencies, is what is minimised. A program's share of it is the time of its runs and the time
that the browser takes to compile it, once per page. A measured latency is the mean over many runs in one pass, so the
launches of the program are in it; a page's launches cost about as much as those that were measured.
"""

from __future__ import annotations


def first_picture_s(calls: float, latency_s: float, compile_s: float) -> float:
    """Return the seconds that a program adds to the first picture of a visit.

    Args:
        calls: calls of the kernel per picture; the program is compiled once for all of them.
        latency_s: seconds of one call, with all of its launches.
        compile_s: seconds of compiling, as measured.
    """
    return calls * latency_s + compile_s
