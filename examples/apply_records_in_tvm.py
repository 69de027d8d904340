"""Apply the best verified schedules of a device to TensorIR modules, in a plain TVM program.

    python examples/apply_records_in_tvm.py --device vulkan:llvmpipe

`ScheduleDatabase` is a `tvm.s_tir.meta_schedule.Database`: every TVM function that takes one accepts it, such as
`meta_schedule.tune_tir` and `relax.transform.MetaScheduleApplyDatabase`.
"""

import argparse

import tvm

import wgtune

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="sd-v1-5", help="whose kernels to look up")
parser.add_argument("--stage", default="clip")
parser.add_argument("--device", default="vulkan:llvmpipe", help="a device key of the database or of a release")
parser.add_argument("--db", help="a SQLite file or a SQLAlchemy URL; by default your own database")


def main() -> None:
    """Look each kernel up and say how many instructions its schedule has."""
    args = parser.parse_args()
    capture = wgtune.capture_model(args.model, stages=[args.stage])
    target = tvm.target.Target({"kind": "vulkan", "max_num_threads": 256})
    found = 0
    database = wgtune.ScheduleDatabase(args.db, device=args.device)
    for kernel in capture.kernels.values():
        schedule = database.query_schedule(tvm.IRModule({"main": kernel.func}), target, "main")
        if schedule is None:
            print(f"{kernel.name}: no record")
            continue
        found += 1
        print(f"{kernel.name}: {len(schedule.trace.insts)} instructions")
    database.close()
    print(f"{found} of {len(capture.kernels)} kernels have a verified schedule on {args.device}")


if __name__ == "__main__":
    main()
