"""The spool: where a message is kept before it is acknowledged, and the only place where edge and load meet.

    home        the directory: lock, identity, recovery        writer   append, commit, seal, delete (edge)
    format      the bytes of a segment                          reader   whole segments (load), recovery
    checkpoint  windows and states as of a segment (edge)       cursor   how far load has come (load)
    identity    which spool this is, and which it was           database the edge's small SQLite files

For people: `survey` lists, `verify` looks at every byte, `repair` mends. They find the files by `files`, what
a damaged byte costs by `examine`, the seed of a damaged header by `seeds`, whether the databases are whole by
`contents`, which segments there should be by `places`, those under a wrong name by `astray`;
`custody` sees that nothing is ever gone. By `requests` load tries parked segments again.

The normative text is schemas/spool.md.
"""
