"""Modelhub beside what people would use instead: same models, same load generator, in turn, on one machine.

`make bench-peers` measures; `python -m benchmarks.curves` and `python -m benchmarks.mixed` show our own cost as work
grows and over time. What they found stands in docs/performance.md.

  places.py        where environments, models and results lie
  environments.py  one Python environment for each peer
  make_models.py   the models that all serve; models.py: what they are
  layouts.py       the folders that each peer wants around them
  peers/           how each is started, addressed and asked; servers/: what runs inside the peers' environments
  driving.py       one run of wrk, with who used the processor meanwhile; pacing.py: load at a fixed rate
  rounds.py        which runs are still to be made, and in which order; setting.py: which machine, which code
  kept.py          ours beside the same model in-process (limits.py, alone.py)
  results.py       what was measured, as JSON lines; summary.py: medians, spread, what is noise
  report.py        tables for docs/performance.md; plot.py: its pictures
"""
