"""Tune some kernels of a model on this machine's best GPU.

python examples/tune_kernels.py --model sd-v1-5 --kernels "layer_norm*" --trials 16
"""

import argparse

import wgtune

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="sd-v1-5", help="a diffusers folder, a Hugging Face id or a built-in name")
parser.add_argument("--stage", default="clip", help="clip, unet or vae")
parser.add_argument("--kernels", default="*", help="a pattern over kernel names")
parser.add_argument("--trials", type=int, default=8, help="search trials per kernel on average")
parser.add_argument("--db", default="example.db", help="a SQLite file or a SQLAlchemy URL")


class PrintTrials:
    """Print one line per trial. Any object with `on` can listen to a session."""

    def on(self, event: object) -> None:
        """Print the end of a trial; ignore all other events."""
        if type(event).__name__ == "TrialEnded":
            latency = f"{event.latency_s * 1e6:.0f} µs" if event.latency_s else event.error
            print(f"{event.kernel_id[:8]}  {event.kind.value:9}  {event.state.value:12}  {latency}")


def main() -> None:
    """Tune, then say how much faster the kernels became."""
    args = parser.parse_args()
    request = wgtune.TuneRequest(
        capture=wgtune.capture_model(args.model, stages=[args.stage]),
        device=wgtune.find_device("auto"),
        kernels=[args.kernels],
        trials=args.trials,
    )
    with wgtune.Store.open(args.db) as store:
        summary = wgtune.tune(request, store, PrintTrials())
    print(f"{summary.tuned} of {summary.kernels} kernels are faster than their baseline")
    print(f"their share of one image: {summary.baseline_s:.4f} s before, {summary.best_s:.4f} s now")


if __name__ == "__main__":
    main()
