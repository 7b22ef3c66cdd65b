"""The spool: where a message is kept before it is acknowledged, and the only place where edge and load meet.

    home        the directory: lock, identity, recovery        writer   append, commit, seal, delete (edge)
    format      the bytes of a segment                          reader   whole segments (load), recovery
    checkpoint  windows and states as of a segment (edge)       cursor   how far load has come (load)

For people's commands: `survey` lists, `verify` looks at every byte, `repair` mends, by `examine`, which says what a
damaged byte costs, and `custody`, which sees that nothing is ever gone; by `requests` load tries parked segments again.

The normative text is schemas/spool.md.
"""
