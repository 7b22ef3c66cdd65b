"""Watch: every ten seconds of the gate's time, is the fleet as it was?

    looks ──> fleet ──> measures ──> judging ──> changes ──> load.alerts
     SQL      vehicles   values       how far     what of
              one by     of cohorts   from what   it is an
              one                     was usual   alert

looks.py     what ClickHouse is asked, as arrays
fleet.py     when and where each vehicle was heard of last
cohorts.py   whose vehicles are compared, and which cohort explains a change
kinds.py     what is compared: one table with the least changes that count
measures.py  one look in values: kind, cohort, signal, how much
usual.py     what was usual: median and scatter of the looks before
judging.py   how far each measure is from that
changes.py   what opens and closes: size, persistence, hysteresis
telling.py   an opening as an alert, and back
turn.py      which load watches, and until when all have loaded
watcher.py   the thread

All but looks.py, turn.py and watcher.py are pure: arrays and times in, values out. docs/explanation/watch.md says what
is compared with what, and what this cannot see.
"""
