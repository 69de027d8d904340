"""Reports as self-contained HTML pages, made by Jinja2 from `templates`; `page.css` and `page.js` go into them.

May import `wgtune.reports`, `wgtune.database` and `wgtune.support`. Reading order:

- `templating`: rendering with every value escaped, and writing to a file.
- `page`: latency and coverage of a model; `tuning_curve` is its time over the trials.
- `stability_page`, `fidelity_page`: the two reports that compare measurements.
- `search_page`: speed against trials.
- `compiled_page`: programs compiled for GPUs that are not here.
- `charts`: geometry of bars, dots and curves.
"""
