"""fleetgate: the gate a fleet's telemetry enters through. This page is its map.

    vehicle ── TLS ──> accept ──> judge ──> spool ──> load ──> ClickHouse
                         │          │                  │           └──> readings, latest, held_events, rejections
                         │          └─ a verdict       └─ transitions ──> control
                         └─ the acknowledgement, once the spool is on disk

The road of one message, and where to read on:

    accept.entrance     a connection begins, and shows its certificate
    accept.registry     whose that is, from control and from what this edge remembers
    accept.loop         a socket gives bytes; accept.mqtt or accept.http makes a message of them
    accept.intake       has it judged, appends and claims it; then one commit for many messages
    judge               six numbered steps without I/O: envelope, identity, MAC, freshness, sequence, body
    accept.scorekeeper  what was refused or suspicious is scored, and may put its device into quarantine
    spool.writer        records, group commit with fdatasync, sealed segments
    load.loader         a sealed segment becomes columns and rows, once
    load.watch          is the fleet as it was? Sudden changes are alerts

What comes back:

    a decision          cli.quarantine -> control.releases -> load.release: what was held of a device becomes events
    a suspicion         load.suspects -> control.suspicions -> accept.changes asks for it -> accept.scorekeeper
    an edge's alert     accept.breaker -> spool -> load.transitions for control, load.edgealerts for the table `alerts`;
                        one that a person closed: cli.alerts -> control.edgealerts -> load.closings
    an alert, outwards  load.alerts -> load.webhooks -> load.posting

Beside the road: `control` (tenants, devices, credentials, quarantine; who may do what; the signer), `evidence`
(samples of what was refused, for whoever decides), `proof` (what is stored, compared with what was signed), `doctor`
(what is wrong with a device or a message), `cli` (what a person types), `config` (every setting) and `configfile`
(which reads them), `rates` (how a limit is written), `bucket` (what is left of one), `scoring` (the table of signals),
`clock`, `errors`, `log`, `admin`, `catalogue`, `supervise`, `leash` and `ending` (the processes of one machine),
`sdnotify` (what systemd is told of them), `durable` (files that outlive a crash), `lock` (what one process has alone),
`converting` (values as structs, in whichever thread), `fault` (where tests end one).
The formats are in `schemas/`, the reasons for choices in docs/adr.
tests/unit/test_layering.py holds which room may import which.
"""
