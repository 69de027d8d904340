"""Read the best records of a device from a database into a pandas frame, the slowest kernels first.

python examples/slowest_kernels.py --db example.db
"""

import argparse

import pandas as pd

import wgtune

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--db", default="example.db", help="a SQLite file or a SQLAlchemy URL")
parser.add_argument("--device", help="a device key; by default the first device of the database")


def main() -> None:
    """Print the slowest kernels: latency of one launch, throughput, and what tuning gained."""
    args = parser.parse_args()
    with wgtune.Store.open(args.db, create=False) as store:
        device = args.device or store.devices()[0].key
        kernels = {kernel.workload_id for model in store.models() for kernel in store.model_kernels(model.capture_key)}
        workloads = store.workloads(kernels)
        best, baselines = store.best(device, kernels), store.baselines(device, kernels)
    frame = pd.DataFrame(
        {
            "kernel": workloads[key].name,
            "latency_us": record.latency_s * 1e6,
            "gflop_per_s": workloads[key].flops / record.latency_s / 1e9,
            "speed_up": baselines[key].latency_s / record.latency_s if key in baselines else None,
        }
        for key, record in best.items()
    )
    print(device)
    print(frame.sort_values("latency_us", ascending=False).head(10).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
