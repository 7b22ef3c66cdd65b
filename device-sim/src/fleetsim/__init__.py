"""fleetsim: a simulated fleet, its attackers, and a ledger of what each message deserves.

The map of this package:

    vehicles -> traffic -> core -> journal -> agent / https_agent -> the gate
    (physics)   (drafts)   (rules)  (disk)    (sockets)                |
                              +---- ledger <------ answers <-----------+

`renewer` asks for the next credential meanwhile; `renewal` is when, with which key, and what a crash leaves of it.
`drive` is a fleet that looks like one (it parks, charges, ages, sleeps), for loads of thousands of vehicles: `swarm`.
`record` takes what a fleet said from an edge's `spool` into a `tape`, and `replay` sends it again, or one `recording`.
`scenarios` is the small fleet of `vehicles` on a virtual clock: an ordinary day, attacks, faults; what is true of each.
What a device is given is read by `bundle`, from a directory of its own, or by `identities`, from one file for a whole
fleet; `foreign` opens such a file, and a tape, as anybody may have made it. `core` is the device without its sockets:
epochs, numbers, signatures, the outbox, and what to do on each answer (`answers`). The agents only move bytes.
`attackers` do what a device must not. `vectors` writes the test vectors.

Nothing here imports fleetgate: the two are written from schemas/envelope.md separately, so that an error in the one
is not repeated by the other.
"""
