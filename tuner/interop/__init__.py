"""Schedules in TVM's own files, and under other versions of TVM.

May import `tuner.capture`, `tuner.codegen`, ``database``, ``devices`` and ``support``. TVM may crash over what is read
here, so it reads in a child process. Reading order:

- `replay`: applies stored schedules under the installed TVM, and stores which of them still apply.
- `replay_child`: the process that applies them.
- `json_import`: reads the two files of TVM's JSONDatabase into the database.
- `json_export`: writes schedules of the database as these files.
- `json_pair`: what import and export share.
- `json_child`: the process that reads and writes entries for both.
- `restarting_child`: one child process that answers questions and is replaced when it crashes or hangs.
"""
