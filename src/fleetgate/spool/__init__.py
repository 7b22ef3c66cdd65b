"""The spool: where a message is kept before it is acknowledged, and the only place where edge and load meet.

    home        the directory: lock, identity, recovery        writer   append, commit, seal, delete (edge)
    format      the bytes of a segment                          reader   whole segments (load), recovery
    checkpoint  windows and states as of a segment (edge)       cursor   how far load has come (load)

The normative text is schemas/spool.md.
"""
